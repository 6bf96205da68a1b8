package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/tools/suite/nats"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Names of programs.
const (
	programLeat      = "leat"
	programBefore    = "leat before"
	programFloor     = "floor"
	programFloorSync = "floor -sync"
	programJournal   = "floor -journal"
	programRecycle   = "floor -recycle"
	programRecycle64 = "floor -recycle, small"
	programDiscard   = "floor -store discard"
	programKafka     = "Apache Kafka"
	programNATS      = "NATS"

	programCleaner       = "leat that is compacting"
	programBeforeCleaner = "leat before that is compacting"
	programKafkaCleaner  = "Apache Kafka that is compacting"

	programLeatSecured  = "leat-secured"
	programKafkaSecured = "Apache-Kafka-secured"

	programLeatThree   = "three nodes of leat"
	programBeforeThree = "three nodes of leat before"
	programKafkaThree  = "three nodes of Apache Kafka"
)

// programNames lists them in the order of the report.
func programNames() []string {
	return []string{
		programLeat, programBefore, programFloor, programFloorSync, programJournal, programRecycle, programRecycle64, programDiscard, programKafka, programNATS,
		programCleaner, programBeforeCleaner, programKafkaCleaner, programLeatSecured, programKafkaSecured, programLeatThree, programBeforeThree, programKafkaThree,
	}
}

// forgets tells whether a program keeps too little for its records to be verified.
func forgets(program string) bool { return strings.HasPrefix(program, programFloor) }

// places is where programs are; "": not there. before is another leat, such as the
// one of the last release, that is measured in turns with leat.
type places struct{ leat, before, floor, kafka, nats string }

// findPrograms names those that can be had, and why others cannot.
func findPrograms(at *places) (have map[string]*server.Program, missing map[string]string) {
	have, missing = map[string]*server.Program{}, map[string]string{}
	leat, floor, kafka := at.leat, at.floor, at.kafka
	if p, err := nats.Program(at.nats); err != nil {
		missing[programNATS] = err.Error()
	} else {
		have[programNATS] = p
	}
	have[programLeat], have[programCleaner], have[programLeatThree] = leatProgram(leat), leatProgram(leat, toldCleaning()...), leatCluster(leat)
	have[programLeatSecured] = leatSecuredProgram(leat)
	if at.before != "" {
		have[programBefore], have[programBeforeCleaner] = leatProgram(at.before), leatProgram(at.before, toldCleaning()...)
		have[programBeforeThree] = leatCluster(at.before)
	}
	for name, flags := range map[string][]string{
		programFloor: nil, programFloorSync: {"-sync"}, programJournal: {"-journal", "256"}, programDiscard: {"-store", "discard"},
		programRecycle:   {"-recycle", "-ring", strconv.Itoa(steadyBytes >> 20)},
		programRecycle64: {"-recycle", "-ring", strconv.Itoa(wideBytes >> 20 / wideSteady)},
	} {
		if _, err := os.Stat(floor); err != nil {
			missing[name] = "there is no " + floor + "; scripts/bench.sh builds it"
			continue
		}
		have[name] = &server.Program{
			About: strings.Join(append([]string{"floor"}, flags...), " ") + " -addr ADDR -dir DIR",
			Command: func(dir, addr string) (string, []string) {
				return floor, slices.Concat(flags, []string{"-addr", addr, "-dir", dir})
			},
		}
	}
	if why := workload.KafkaMissing(kafka); why != "" {
		for _, name := range []string{programKafka, programKafkaCleaner, programKafkaSecured, programKafkaThree} {
			missing[name] = why
		}
		return have, missing
	}
	have[programKafkaThree], have[programKafkaCleaner], have[programKafkaSecured] = kafkaCluster(kafka), kafkaCleanerProgram(kafka), kafkaSecuredProgram(kafka)
	java := javaOf(kafka)
	have[programKafka] = &server.Program{
		About:   aboutKafka(kafka) + strings.Join(settings(" "), ""),
		Prepare: func(ctx context.Context, dir, addr string) error { return formatKafka(ctx, dir, addr, java) },
		Command: func(dir, _ string) (string, []string) { return "java", java(dir, "kafka.Kafka") },
	}
	return have, missing
}

// aboutKafka is how a node of Apache Kafka is started, up to its settings.
func aboutKafka(home string) string {
	return "java -Xmx1g -Xms1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 kafka.Kafka server.properties, " + kafkaVersion(home) +
		", one KRaft node, defaults and"
}

// leatProgram starts the leat at path, with more arguments beside the usual ones.
func leatProgram(path string, more ...string) *server.Program {
	about := "leat up --data DIR --listen ADDR --http off" + strings.Join(settings(" --set "), "")
	return &server.Program{
		About: strings.Join(append([]string{about}, more...), " "),
		Command: func(dir, addr string) (string, []string) {
			args := []string{"up", "--data", dir, "--listen", addr, "--http", "off", "--log-level", "warn"}
			return path, slices.Concat(args, settings("--set="), more)
		},
	}
}

// settings are those of both brokers that differ from their defaults: a log that
// has reached its retention must be cut while it is measured, and a group's rebalance
// must not begin with a wait.
func settings(before string) (all []string) {
	for _, s := range []string{"log.retention.check.interval.ms=1000", "group.initial.rebalance.delay.ms=0"} {
		all = append(all, before+s)
	}
	return all
}

// kafkaVersion is told by the name of a jar.
func kafkaVersion(home string) string {
	jars, _ := filepath.Glob(filepath.Join(home, "libs", "kafka-clients-*.jar")) // the pattern is fine
	if len(jars) == 0 {
		return "of an unknown version"
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(jars[0]), "kafka-clients-"), ".jar")
}

// javaOf makes the arguments with which java runs a class of Kafka's with the properties in a directory.
func javaOf(kafka string) func(dir string, class ...string) []string {
	return func(dir string, class ...string) []string {
		args := []string{
			"-Xmx1g", "-Xms1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
			"-XX:InitiatingHeapOccupancyPercent=35", "-cp", filepath.Join(kafka, "libs", "*"),
		}
		return append(append(args, class...), filepath.Join(dir, "server.properties"))
	}
}

// formatKafka does the step that Kafka needs before its first start. more are settings beside the usual ones.
func formatKafka(ctx context.Context, dir, addr string, java func(dir string, class ...string) []string, more ...string) error {
	controller, err := server.FreeAddress()
	if err != nil {
		return err
	}
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
log.dirs=%[3]s
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
%[4]s
`, addr, controller, filepath.Join(dir, "log"), strings.Join(slices.Concat(settings(""), more), "\n"))
	if err := os.WriteFile(filepath.Join(dir, "server.properties"), []byte(properties), 0o600); err != nil {
		return err
	}
	return runFormat(ctx, java(dir, "kafka.tools.StorageTool", "format", "-t", newClusterID(), "-c"))
}

// newClusterID is an id in the form that Kafka wants.
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	id[0] &= 0x7f           // or one in 64 begins with a dash, which the tool takes for a flag
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// runFormat runs Kafka's tool that makes an empty directory a node's.
func runFormat(ctx context.Context, args []string) error {
	if out, err := exec.CommandContext(ctx, "java", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format: %w: %s", err, out)
	}
	return nil
}
