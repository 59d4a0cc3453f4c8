"""Devices from the operator's side: enrolment, certificates, tokens.

``tokens`` is shared with the Lambda function that checks enrolments. Commands and the local cloud
import the others.
"""
