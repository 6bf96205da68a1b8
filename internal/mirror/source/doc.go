// Package source is a client of another cluster, for the links that mirror it: a Leat, an Apache Kafka from 2.1 on, or what speaks their protocol. It reads batches as they
// are stored, and what a mirror has to know of topics, logs and leaders. It writes nothing at a source.
//
// A Client dials the brokers at the addresses that they advertise, or at those by which Config.Reach replaces them. Which versions of the protocol
// a broker speaks is found out by each connection. Where a broker is too old to compare the epoch of the last record that was read
// (Fetch before version 12), Client.Fetch does not say that a log has diverged: Client.EpochEnds does.
package source
