"""The operator's side of devices: provisioning, certificates, enrolment tokens."""
