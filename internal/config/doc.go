// Package config has the tables of all configs of topics, brokers, groups and metrics
// subscriptions, which are Kafka's and a few of Leat's own.
//
// Def describes one config: its type, default, scope, check, synonyms and documentation.
// A value can be set in several places; a View has all of them, and computes the value
// that a config has on a node, and from which place. Settings and Server have the values
// of topics and brokers in Go's types. Static has the settings with which a node was
// started.
//
// The package does not know the cluster: its callers pass the configs that were set
// dynamically. The tables (table_*.go) and a Static never change, so everything may be
// used concurrently.
package config
