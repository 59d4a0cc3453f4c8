"""Resource types of the templates: the API call that creates one, and how others refer to it.

CloudFormation's properties and the API's parameters have the same names but for case, and for what
``aliases`` lists: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A resource type."""

    call: tuple[str, str] | None = None
    """Service and operation that create one; None where one call does not say it all."""
    name: str = ""
    """The property with its name."""
    identifier: str = "{name}"
    """What ``Ref`` gives."""
    arn: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the call, by the property that fills them."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Parameters that CloudFormation fills by itself."""


_IOT = "arn:aws:iot:{region}:{account}"
KINDS: dict[str, Kind] = {
    "AWS::Budgets::Budget": Kind(
        call=("budgets", "CreateBudget"), given={"AccountId": "{account}"}
    ),
    "AWS::CloudWatch::Alarm": Kind(
        call=("cloudwatch", "PutMetricAlarm"),
        name="AlarmName",
        arn="arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    ),
    "AWS::CloudWatch::Dashboard": Kind(call=("cloudwatch", "PutDashboard"), name="DashboardName"),
    "AWS::CodeBuild::Project": Kind(
        call=("codebuild", "CreateProject"),
        name="Name",
        arn="arn:aws:codebuild:{region}:{account}:project/{name}",
    ),
    "AWS::DynamoDB::Table": Kind(
        call=("dynamodb", "CreateTable"),
        name="TableName",
        arn="arn:aws:dynamodb:{region}:{account}:table/{name}",
    ),
    "AWS::EC2::InternetGateway": Kind(
        call=("ec2", "CreateInternetGateway"), identifier="igw-{hash}"
    ),
    "AWS::EC2::Route": Kind(call=("ec2", "CreateRoute"), identifier="r-{hash}"),
    "AWS::EC2::RouteTable": Kind(call=("ec2", "CreateRouteTable"), identifier="rtb-{hash}"),
    "AWS::EC2::SecurityGroup": Kind(
        call=("ec2", "CreateSecurityGroup"),
        name="GroupName",
        identifier="sg-{hash}",
        aliases={"GroupDescription": "Description"},
    ),
    "AWS::EC2::SecurityGroupIngress": Kind(
        call=("ec2", "AuthorizeSecurityGroupIngress"), identifier="sgr-{hash}"
    ),
    "AWS::EC2::Subnet": Kind(call=("ec2", "CreateSubnet"), identifier="subnet-{hash}"),
    "AWS::EC2::SubnetRouteTableAssociation": Kind(
        call=("ec2", "AssociateRouteTable"), identifier="rtbassoc-{hash}"
    ),
    "AWS::EC2::VPC": Kind(call=("ec2", "CreateVpc"), identifier="vpc-{hash}"),
    "AWS::EC2::VPCEndpoint": Kind(call=("ec2", "CreateVpcEndpoint"), identifier="vpce-{hash}"),
    "AWS::EC2::VPCGatewayAttachment": Kind(
        call=("ec2", "AttachInternetGateway"), identifier="IGW|{hash}"
    ),
    "AWS::ECR::Repository": Kind(
        call=("ecr", "CreateRepository"),
        name="RepositoryName",
        arn="arn:aws:ecr:{region}:{account}:repository/{name}",
    ),
    "AWS::ECS::Cluster": Kind(
        call=("ecs", "CreateCluster"),
        name="ClusterName",
        arn="arn:aws:ecs:{region}:{account}:cluster/{name}",
        aliases={"ClusterSettings": "settings"},
    ),
    "AWS::ECS::TaskDefinition": Kind(
        call=("ecs", "RegisterTaskDefinition"),
        name="Family",
        identifier="arn:aws:ecs:{region}:{account}:task-definition/{name}:1",
    ),
    "AWS::Events::Rule": Kind(
        call=("events", "PutRule"),
        name="Name",
        arn="arn:aws:events:{region}:{account}:rule/{name}",
    ),
    "AWS::IAM::Role": Kind(
        call=("iam", "CreateRole"), name="RoleName", arn="arn:aws:iam::{account}:role/{name}"
    ),
    "AWS::IoT::Policy": Kind(
        call=("iot", "CreatePolicy"), name="PolicyName", arn=_IOT + ":policy/{name}"
    ),
    "AWS::IoT::ProvisioningTemplate": Kind(
        call=("iot", "CreateProvisioningTemplate"), name="TemplateName"
    ),
    "AWS::IoT::RoleAlias": Kind(call=("iot", "CreateRoleAlias"), name="RoleAlias"),
    "AWS::IoT::ThingGroup": Kind(call=("iot", "CreateThingGroup"), name="ThingGroupName"),
    "AWS::IoT::ThingType": Kind(call=("iot", "CreateThingType"), name="ThingTypeName"),
    "AWS::IoT::TopicRule": Kind(
        call=("iot", "CreateTopicRule"), name="RuleName", arn=_IOT + ":rule/{name}"
    ),
    "AWS::KMS::Alias": Kind(call=("kms", "CreateAlias"), name="AliasName"),
    "AWS::KMS::Key": Kind(
        call=("kms", "CreateKey"),
        identifier="{uuid}",
        arn="arn:aws:kms:{region}:{account}:key/{uuid}",
        aliases={"KeyPolicy": "Policy"},
    ),
    "AWS::Lambda::EventSourceMapping": Kind(
        call=("lambda", "CreateEventSourceMapping"), identifier="{uuid}"
    ),
    "AWS::Lambda::Function": Kind(
        call=("lambda", "CreateFunction"),
        name="FunctionName",
        arn="arn:aws:lambda:{region}:{account}:function:{name}",
    ),
    "AWS::Lambda::Permission": Kind(
        call=("lambda", "AddPermission"), given={"StatementId": "{hash}"}
    ),
    "AWS::Logs::LogGroup": Kind(
        call=("logs", "CreateLogGroup"),
        name="LogGroupName",
        arn="arn:aws:logs:{region}:{account}:log-group:{name}:*",
    ),
    "AWS::Logs::MetricFilter": Kind(
        call=("logs", "PutMetricFilter"), given={"filterName": "{hash}"}
    ),
    "AWS::Route53::HostedZone": Kind(
        call=("route53", "CreateHostedZone"),
        identifier="Z{hash}",
        given={"CallerReference": "{hash}"},
    ),
    "AWS::Route53::RecordSet": Kind(identifier="{hash}"),
    "AWS::S3::Bucket": Kind(
        call=("s3", "CreateBucket"),
        name="BucketName",
        arn="arn:aws:s3:::{name}",
        aliases={"BucketName": "Bucket"},
    ),
    "AWS::S3::BucketPolicy": Kind(
        call=("s3", "PutBucketPolicy"), aliases={"PolicyDocument": "Policy"}
    ),
    "AWS::SNS::Subscription": Kind(call=("sns", "Subscribe"), identifier="{hash}"),
    "AWS::SNS::Topic": Kind(
        call=("sns", "CreateTopic"),
        name="TopicName",
        identifier="arn:aws:sns:{region}:{account}:{name}",
        aliases={"TopicName": "Name"},
    ),
    "AWS::SNS::TopicPolicy": Kind(identifier="{hash}"),
    "AWS::SQS::Queue": Kind(
        call=("sqs", "CreateQueue"),
        name="QueueName",
        identifier="https://sqs.{region}.amazonaws.com/{account}/{name}",
        arn="arn:aws:sqs:{region}:{account}:{name}",
    ),
    "AWS::SQS::QueuePolicy": Kind(identifier="{hash}"),
    "AWS::SageMaker::MlflowApp": Kind(
        call=("sagemaker", "CreateMlflowApp"),
        name="Name",
        identifier="arn:aws:sagemaker:{region}:{account}:mlflow-app/app-{hash}",
        arn="arn:aws:sagemaker:{region}:{account}:mlflow-app/app-{hash}",
    ),
    "AWS::SageMaker::MlflowTrackingServer": Kind(
        call=("sagemaker", "CreateMlflowTrackingServer"),
        name="TrackingServerName",
        arn="arn:aws:sagemaker:{region}:{account}:mlflow-tracking-server/{name}",
    ),
    "AWS::SageMaker::ModelPackageGroup": Kind(
        call=("sagemaker", "CreateModelPackageGroup"),
        name="ModelPackageGroupName",
        identifier="arn:aws:sagemaker:{region}:{account}:model-package-group/{name}",
    ),
    "AWS::Scheduler::ScheduleGroup": Kind(call=("scheduler", "CreateScheduleGroup"), name="Name"),
    "AWS::StepFunctions::StateMachine": Kind(
        call=("stepfunctions", "CreateStateMachine"),
        name="StateMachineName",
        identifier="arn:aws:states:{region}:{account}:stateMachine:{name}",
        arn="arn:aws:states:{region}:{account}:stateMachine:{name}",
        aliases={"StateMachineName": "name", "DefinitionString": "definition"},
    ),
}
