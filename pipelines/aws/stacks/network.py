"""The tasks' network: private subnets without a route to the internet, and VPC endpoints to AWS.

Data cannot leave: a task in an attacker's hands could call these services, as far as its policies
allow, and nothing else.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

ZONES = 2
ENDPOINTS = {
    "EcrApi": "ecr.api",
    "EcrImages": "ecr.dkr",
    "Logs": "logs",
    "Steps": "states",
    "Secrets": "secretsmanager",
    "Iot": "iot.data",
    "Kms": "kms",
    "Mlflow": "sagemaker.experiments",
}
"""The services that tasks call, by construct:
https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html
"""


class Network(Construct):
    """A VPC in two zones, its endpoints, and the tasks' security group."""

    def __init__(self, scope: Construct, name: str, prefix: str) -> None:
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
        for endpoint, service in ENDPOINTS.items():
            ec2.CfnVPCEndpoint(
                self,
                f"Link{endpoint}",
                vpc_id=vpc.vpc_id,
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                service_name=_service_name(service),
                subnet_ids=[subnet.subnet_id for subnet in vpc.isolated_subnets],
                security_group_ids=[links.attr_group_id],
            )
        self.subnets = tuple(subnet.subnet_id for subnet in vpc.isolated_subnets)
        self.security_groups = (tasks.attr_group_id,)

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


def _service_name(service: str) -> str:
    """The endpoint of managed MLflow has a name of another form."""
    if service.startswith("sagemaker."):
        return f"aws.sagemaker.{cdk.Aws.REGION}.experiments"
    return f"com.amazonaws.{cdk.Aws.REGION}.{service}"
