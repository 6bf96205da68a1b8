// Package capped is a proxy before the brokers of a cluster, by which it looks like an older one, or another implementation of Kafka's protocol, to clients that do not go around it: the answers
// to ApiVersions have lower versions and fewer APIs, and all addresses of brokers in answers are replaced by those of the proxy, one for each broker. Everything else passes unchanged. The package is for tests only.
//
// A request that a broker of these versions would not know ends its connection, as such a broker does; ApiVersions itself is answered as KIP-511 says. What an older broker does otherwise
// within a version, a Proxy cannot imitate. Finalized features are left out, since they belong to the versions of the cluster.
//
// A Proxy has to read what it carries: connections are not encrypted, and SASL is that of version 1 of SaslHandshake, whose messages are requests.
package capped
