// Package config is the table of Kafka's configs: what topics, brokers, groups and
// metrics subscriptions can be configured with. Def describes one config: its type,
// default, scope, check, synonyms and documentation. View computes from all places
// in which a value may be set what a config is worth on a node, and why; Settings and
// Server are typed views for code that acts on them. Static are the settings that a
// node itself was started with.
//
// The package knows no cluster: what is set dynamically is handed to it. The tables
// (table_*.go) are built once and never change, and neither does a Static, so all of
// it may be used concurrently.
package config
