# One image for all programs of the mesh; the command says which: `node dist/agent/main.js`, `node dist/control/main.js`, `node dist/cli/main.js`.
#
#   docker build --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) -t culvert .
#
# The result holds Node, our programs and the libraries they load, and nothing else: no shell, no package manager. Where no registry is reached,
# `.ci/image/base.sh` makes the build image from Debian's and npm's packages: --build-arg BUILD_IMAGE=localhost/culvert-build (buildah, podman).
# Signing, SBOM: docs/image.md.
ARG BUILD_IMAGE=docker.io/library/node:24.21.0-bookworm

FROM ${BUILD_IMAGE} AS build
RUN packages="clang gcc make libc6-dev linux-libc-dev libbpf-dev libelf-dev zlib1g-dev libssl-dev binutils"; \
    dpkg-query -W $packages >/dev/null 2>&1 || \
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; }
WORKDIR /src
# Where npm's registry is reached by a proxy with an authority of its own; mount its file.
ARG NODE_EXTRA_CA_CERTS
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
# Only what ships: test/ is left out by .dockerignore.
RUN make -s -C bpf && make -s -C native && make -s -C mesh/proto && npx tsc -p . && npm prune --omit=dev --ignore-scripts --no-audit --no-fund
ARG SOURCE_DATE_EPOCH=0
RUN SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} sh .ci/image/assemble.sh /image

FROM scratch
COPY --from=build /image/ /
WORKDIR /culvert
ENV NODE_ENV=production PATH=/usr/local/bin
# The agent alone needs to be root: the chart says so. Everything else is not.
USER 65532:65532
ENTRYPOINT ["node"]
