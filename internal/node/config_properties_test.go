package node

import (
	"errors"
	"strings"
	"testing"
)

// kraftProperties is what Kafka 4 ships as config/server.properties, without its comments but one, and with some of what operators add.
const kraftProperties = `# Licensed to the Apache Software Foundation
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
`

// TestServerProperties proves that a server.properties of Kafka is read as it is, by Java's rules: the settings count, the listeners of controllers are
// left out, and each name that means nothing here is told of with its line.
func TestServerProperties(t *testing.T) {
	read := func(path, text string) (Config, error) {
		src, err := parseFile(path, []byte(text))
		if err != nil {
			return Config{}, err
		}
		return Combine(src)
	}
	cfg, err := read("server.conf", kraftProperties)
	if err != nil {
		t.Fatal(err)
	}
	if *cfg.ID != 1 || cfg.Data != "/tmp/kraft-combined-logs" || strings.Join(cfg.Listen, ",") != "PLAINTEXT=127.0.0.1:9092" && strings.Join(cfg.Listen, ",") != "PLAINTEXT://127.0.0.1:9092" ||
		len(cfg.Advertise) != 1 || cfg.Settings["log.retention.hours"] != "168" {
		t.Errorf("%+v", cfg)
	}
	if len(cfg.Warnings) != 1 || cfg.Warnings[0] != "server.conf: line 8: controller.listener.names has no effect: nodes and clients share their listeners, so those for controllers are left out" {
		t.Errorf("%q", cfg.Warnings)
	}
	cfg, err = read("x.properties", "! of ZooKeeper's time\nbroker.id: 0\nzookeeper.connect=localhost:2181\nlog.dirs /data/\\u0061\\\n   b\nnum.partitions=2\nnum.partitions = 3\nconfluent.metrics.port=9\n")
	if err != nil || *cfg.ID != 0 || cfg.Data != "/data/ab" || cfg.Settings["num.partitions"] != "3" {
		t.Errorf("%+v, %v", cfg, err)
	}
	for i, want := range []string{"x.properties: line 3: zookeeper.connect has no effect: there is no ZooKeeper", "line 6: num.partitions has no effect: it is set again on line 7", "line 8: confluent.metrics.port has no effect: neither"} {
		if len(cfg.Warnings) != 3 || !strings.Contains(cfg.Warnings[i], want) {
			t.Errorf("%q, want %q", cfg.Warnings, want)
		}
	}
	for text, wants := range map[string][]string{
		"node.id=1\nnum.partition=3\n":      {"f: line 2: ", `unknown setting "num.partition"`, `did you mean "num.partitions"?`},
		"node.id=1\nauthorizer.klass=x\n":   {"line 2", `unknown setting "authorizer.klass"`},
		"node.id=1\nssl.key.passwort=x\n":   {"line 2", "unknown setting"},
		"node.id=x\n":                       {"f: line 1: ", "is not a node id"},
		"node.id=1\nnum.partitions=\\u00\n": {"line 2", "hexadecimal"},
		"process.roles=controller\ncontroller.listener.names=C\nlisteners=C://:9093\n": {"process.roles"},
	} {
		_, err := read("f", text)
		for _, want := range wants {
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	}
	for text, want := range map[string]bool{
		"a=b": true, "# c\n\n a.b = c\n": true, "!x\na=b: c": true, "a: b=c": false, "a: b": false, "a b=c": false, "- a=b": false, "{a: b}": false, "": false, "=": false,
	} {
		if isProperties("f", []byte(text)) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}
