"""What server, proxies and Lambda functions know of a run. The lowest layer of ``fl_runtime``.

What it is (``spec``, ``cohorts``, ``keys``), how far it is (``state``, ``records``), how it is
judged and priced (``scoring``, ``cost``), who may take part (``devices``, ``eligibility``), what
server and proxies say to each other (``messages``), and AWS behind small ports (``ports``, ``aws``,
``signing``, ``mlflow_runs``). Imports only ``edge``; everything above may import all of it.
``aws.client`` and ``aws.setting`` are for entry points.
"""
