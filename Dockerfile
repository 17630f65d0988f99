# syntax=docker/dockerfile:1
# An image of the edge: `docker build -t snapedge .`
#
# It was written where no image can be built, so nothing but its form was checked there: build and run
# it before you rely on it.
#
# Docker's own filter of system calls refuses `pidfd_getfd`, by which what a client did not take is
# forgotten as soon as it is left; without it the kernel keeps megabytes for each such client for
# minutes. With `--cap-add SYS_PTRACE` the filter lets it pass, and the user here, who is not root,
# gets no right by that.

FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Panics name the files of their sources: neither these folders nor those of Cargo are in the program.
ENV RUSTFLAGS="--remap-path-prefix=/src=snapedge --remap-path-prefix=/usr/local/cargo=cargo" \
    CARGO_PROFILE_RELEASE_STRIP=symbols
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo fetch --locked --target x86_64-unknown-linux-gnu --target aarch64-unknown-linux-gnu \
    && cargo build --locked --release \
    && install -D -m 755 target/release/snapedge /made/snapedge \
    && packaging/sbom.py /made/doc

FROM debian:bookworm-slim
# Authorities for targets that are reached by TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 snapedge \
    && useradd --system --uid 10001 --gid snapedge --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin snapedge \
    && install -d -o snapedge -g snapedge -m 750 /var/cache/snapedge
COPY --from=build /made/snapedge /usr/bin/snapedge
COPY --from=build /made/doc LICENSE /usr/share/doc/snapedge/
COPY packaging/debian/snapedge.yaml /etc/snapedge/snapedge.yaml
USER 10001:10001
VOLUME /var/cache/snapedge
EXPOSE 8458
STOPSIGNAL SIGTERM
# 0 healthy, 1 not, which it is as well while no target offers anything, 2 no answer.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/bin/snapedge", "status", "-c", "/etc/snapedge/snapedge.yaml"]
ENTRYPOINT ["/usr/bin/snapedge"]
CMD ["-c", "/etc/snapedge/snapedge.yaml"]
