"""The tasks' network: private subnets without a route to the internet, and VPC endpoints to AWS.

Data cannot leave: a task in an attacker's hands could call these services, as far as its policies
allow, and nothing else. A public network, for trials, has a route to the internet and no endpoints;
nobody gets in there either.
"""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_route53 as route53
from constructs import Construct

from pipelines.aws.endpoints import ENDPOINTS, IOT_DATA, MLFLOW, NO_PRIVATE_DNS, ZONES, service_name
from pipelines.aws.stacks.stack import Mlflow, Stack

IOT_HOST = "data-ats.iot"
"""What boto3's host for AWS IoT's data plane begins with, before the region."""


class Network(Construct):
    """A VPC in two zones, its endpoints, and the tasks' security group."""

    def __init__(self, scope: Stack, name: str, prefix: str, mlflow: Mlflow) -> None:
        super().__init__(scope, name)
        vpc = ec2.Vpc(
            self,
            "Vpc",
            vpc_name=prefix,
            ip_addresses=ec2.IpAddresses.cidr("10.61.0.0/20"),
            max_azs=ZONES,
            nat_gateways=0,
            restrict_default_security_group=False,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="tasks", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=22
                )
            ],
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3),
                "DynamoDB": ec2.GatewayVpcEndpointOptions(
                    service=ec2.GatewayVpcEndpointAwsService.DYNAMODB
                ),
            },
        )
        self._choose_zones(scope, vpc)
        tasks = ec2.CfnSecurityGroup(
            self,
            "Tasks",
            group_description="Servers and proxies of MLEdgeOps",
            vpc_id=vpc.vpc_id,
            group_name=f"{prefix}-tasks",
        )
        links = ec2.CfnSecurityGroup(
            self,
            "Links",
            group_description="VPC endpoints of MLEdgeOps",
            vpc_id=vpc.vpc_id,
            group_name=f"{prefix}-links",
        )
        self._rules(tasks, links)
        self._links(scope, vpc, links, mlflow)
        self._open(vpc, mlflow.public)
        self.subnets = tuple(subnet.subnet_id for subnet in vpc.isolated_subnets)
        self.security_groups = (tasks.attr_group_id,)
        self.public_addresses = cdk.Fn.condition_if(
            mlflow.public.logical_id, "ENABLED", "DISABLED"
        ).to_string()

    def _links(
        self, stack: Stack, vpc: ec2.Vpc, links: ec2.CfnSecurityGroup, mlflow: Mlflow
    ) -> None:
        """The endpoints of a private network."""
        private = cdk.CfnCondition(
            stack, "PrivateNetwork", expression=cdk.Fn.condition_not(mlflow.public)
        )
        for endpoint, service in ENDPOINTS.items():
            made = ec2.CfnVPCEndpoint(
                self,
                f"Link{endpoint}",
                vpc_id=vpc.vpc_id,
                vpc_endpoint_type="Interface",
                private_dns_enabled=service not in NO_PRIVATE_DNS,
                service_name=service_name(service, cdk.Aws.REGION),
                subnet_ids=[subnet.subnet_id for subnet in vpc.isolated_subnets],
                security_group_ids=[links.attr_group_id],
            )
            made.cfn_options.condition = mlflow.server if service == MLFLOW else private
            if service == IOT_DATA:
                self._name(vpc, made, private)

    def _open(self, vpc: ec2.Vpc, public: cdk.CfnCondition) -> None:
        """Lead the subnets of a public network to the internet."""
        gateway = ec2.CfnInternetGateway(self, "Gateway")
        attached = ec2.CfnVPCGatewayAttachment(
            self, "Attached", vpc_id=vpc.vpc_id, internet_gateway_id=gateway.ref
        )
        gateway.cfn_options.condition = attached.cfn_options.condition = public
        for index, subnet in enumerate(vpc.isolated_subnets):
            route = ec2.CfnRoute(
                self,
                f"Out{index}",
                route_table_id=subnet.route_table.route_table_id,
                destination_cidr_block="0.0.0.0/0",
                gateway_id=gateway.ref,
            )
            route.cfn_options.condition = public
            route.node.add_dependency(attached)

    def _choose_zones(self, stack: Stack, vpc: ec2.Vpc) -> None:
        """Put the subnets into the zones of the parameter: not every zone has every endpoint."""
        zones = stack.parameter(
            "Zones",
            f"{ZONES} availability zones that have all endpoints, with a comma between them; "
            "empty: the region's first",
            default="",
        ).value_as_string
        first = cdk.CfnCondition(stack, "FirstZones", expression=cdk.Fn.condition_equals(zones, ""))
        for index, subnet in enumerate(vpc.isolated_subnets):
            chosen = cdk.Fn.condition_if(
                first.logical_id,
                cdk.Fn.select(index, cdk.Fn.get_azs()),
                cdk.Fn.select(index, cdk.Fn.split(",", zones)),
            )
            made = cast(ec2.CfnSubnet, subnet.node.default_child)
            made.add_property_override("AvailabilityZone", chosen)

    def _name(self, vpc: ec2.Vpc, endpoint: ec2.CfnVPCEndpoint, private: cdk.CfnCondition) -> None:
        """Name AWS IoT's endpoint as boto3 calls it. The service gives it no name of its own:
        https://docs.aws.amazon.com/iot/latest/developerguide/IoTCore-VPC.html

        The zone is the host itself: one for ``iot.REGION.amazonaws.com`` would hide the control
        plane as well.
        """
        host = f"{IOT_HOST}.{cdk.Aws.REGION}.{cdk.Aws.URL_SUFFIX}"
        zone = route53.CfnHostedZone(
            self,
            "IotZone",
            name=host,
            vpcs=[route53.CfnHostedZone.VPCProperty(vpc_id=vpc.vpc_id, vpc_region=cdk.Aws.REGION)],
        )
        # The first entry is the endpoint's regional name, with its zone's id before it, and
        # answers with the addresses of the interfaces in all zones.
        entry = cdk.Fn.split(":", cdk.Fn.select(0, endpoint.attr_dns_entries))
        record = route53.CfnRecordSet(
            self,
            "IotRecord",
            hosted_zone_id=zone.attr_id,
            name=host,
            type="A",
            alias_target=route53.CfnRecordSet.AliasTargetProperty(
                hosted_zone_id=cdk.Fn.select(0, entry), dns_name=cdk.Fn.select(1, entry)
            ),
        )
        zone.cfn_options.condition = record.cfn_options.condition = private

    def _rules(self, tasks: ec2.CfnSecurityGroup, links: ec2.CfnSecurityGroup) -> None:
        """Proxies reach their server's gRPC port, which the system chooses; tasks reach the
        endpoints; nobody else gets in.
        """
        for name, settings in {
            "Grpc": {
                "group_id": tasks.attr_group_id,
                "source_security_group_id": tasks.attr_group_id,
                "from_port": 1024,
                "to_port": 65535,
            },
            "ToLinks": {
                "group_id": links.attr_group_id,
                "source_security_group_id": tasks.attr_group_id,
                "from_port": 443,
                "to_port": 443,
            },
        }.items():
            description = (
                "gRPC from proxies to their server" if name == "Grpc" else "HTTPS from tasks"
            )
            ec2.CfnSecurityGroupIngress(
                self, name, ip_protocol="tcp", description=description, **settings
            )
