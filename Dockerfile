# An image of Leat: the static binary, a user without rights and volumes for the data and for the sealing key of a secured cluster.
#   docker build -t leat . && docker run -p 9092:9092 -v leat-data:/data leat
# Health and metrics are only for the container itself, unless you add: -e LEAT_HTTP=:8080 -p 8080:8080
# Secured from the first start on (docs/security.md), with a name that clients reach; without a volume of its own the sealing key would be lost with the container:
#   docker run -p 9092:9092 -v leat-data:/data -v leat-key:/key -e LEAT_SECURE=1 -e LEAT_ADVERTISE=broker1.example.com:9092 leat
# Other verbs run as well: docker run leat topic list --bootstrap HOST:PORT
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /leat ./cmd/leat && mkdir /data /key

FROM scratch
COPY --from=build /leat /leat
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build --chown=65532:65532 /key /key
USER 65532:65532
ENV LEAT_DATA=/data LEAT_SEALING_KEY=/key/leat.key LEAT_LISTEN=:9092
VOLUME /data /key
EXPOSE 9092
HEALTHCHECK --interval=10s --timeout=5s CMD ["/leat", "health", "--timeout", "4s"]
ENTRYPOINT ["/leat"]
CMD ["up"]
