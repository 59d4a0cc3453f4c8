# The proxy task: neither torch nor Flower, so that it starts in a second.
# `mledgeops deploy --synth DIR` writes the build context: this file, the wheel, and the pinned lists.
# The index of python:3.11-slim-bookworm for linux/amd64 and linux/arm64.
FROM python:3.11-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba AS build
COPY proxy.txt /build/
RUN python -m venv /opt/mledgeops && \
    /opt/mledgeops/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r /build/proxy.txt
COPY mledgeops-*.whl /build/
RUN /opt/mledgeops/bin/pip install --no-cache-dir --no-deps /build/mledgeops-*.whl

FROM python:3.11-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mledgeops
COPY --from=build /opt/mledgeops /opt/mledgeops
# The root file system is read-only on Fargate; /tmp is the one place to write.
ENV PATH=/opt/mledgeops/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /tmp
CMD ["python", "-m", "fl_runtime.proxy"]
