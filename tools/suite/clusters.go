package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/cluster"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// nodes is how many nodes a cluster has, and how many replicas its partitions.
const nodes = 3

// Names of workloads of a cluster.
const (
	clusterProduce    = "cluster of three: produce, RF 3, acks=all, 1 KiB records, 16 a batch, 32 in flight to each of 3 partitions"
	clusterLatency    = "cluster of three: latency, RF 3, acks=all, 100 B records, 1,000/s and 1/s"
	clusterCatchUp    = "cluster of three: a node that was away catches up"
	clusterKill       = "cluster of three: gap after kill -9 of the leader"
	clusterKillJava   = "cluster of three: gap after kill -9 of the leader, Apache Kafka's own producer"
	clusterStop       = "cluster of three: gap after a stop of the leader"
	clusterSilence    = "cluster of three: gap after the leader stands still (SIGSTOP)"
	clusterController = "cluster of three: kill -9 of the controller to the first topic that is made"
	clusterMany       = "cluster of three: 10,000 partitions"
	clusterIdle       = "cluster of three: idle, 1,000 partitions"
)

// clusterRows are the workloads of clusters. Those that break nodes come after those that need a cluster
// whose code is warm.
func clusterRows() []row {
	both := []string{leatThree, kafkaThree}
	replicated := func(partitions int, set func(o *workload.Options)) func(o *workload.Options) {
		return func(o *workload.Options) {
			o.Replication, o.Partitions = nodes, partitions
			o.Configs = append(o.Configs, "min.insync.replicas=2")
			set(o)
		}
	}
	faults := func(n int) func(o *workload.Options) {
		return replicated(1, func(o *workload.Options) { o.Size, o.Faults = 100, n })
	}
	fewer := func(n int) func(o *workload.Options) { return func(o *workload.Options) { o.Faults = n } }
	thousand := func(o *workload.Options) { o.Partitions = fewerPartitions }
	return []row{
		{
			name: clusterProduce, cluster: cluster.Produce, who: []string{leatThree, cacheThree, kafkaThree},
			set:     replicated(nodes, func(o *workload.Options) { o.Size, o.Batch, o.InFlight = 1024, 16, 32 }),
			figures: []figure{cpuByteFigure(), rateFigure(), recordRateFigure(), clientByteFigure(), diskFigure(), peakFigure()},
			note:    "CPU, disk and memory are those of all brokers together.",
		},
		{
			name: clusterLatency, cluster: cluster.Latency, who: both, heavy: true, turn: 20 * time.Second,
			set: replicated(1, func(o *workload.Options) { o.Size, o.Rate = 100, 1000 }), figures: clusterLatencyFigures(),
		},
		{
			name: clusterCatchUp, cluster: cluster.CatchUp, who: both, heavy: true, large: true, turn: 40 * time.Second,
			set:     replicated(6, func(o *workload.Options) { o.Size, o.Batch, o.InFlight, o.Records = 1024, 500, 5, 4<<30/1024 }),
			figures: catchUpFigures(), note: "4 GiB were produced to 6 partitions while the node was away; the quick suite has a fifth of it.",
		},
		{
			name: clusterStop, cluster: cluster.LeaderStopped, who: both, once: true, large: true, turn: 60 * time.Second,
			set: faults(20), fewer: fewer(10), figures: faultFigures(cluster.FaultGap), note: gapNote(20, 10),
		},
		{
			name: clusterKill, cluster: cluster.LeaderKilled, who: both, once: true, large: true, turn: 120 * time.Second,
			set: faults(20), fewer: fewer(10), figures: faultFigures(cluster.FaultGap), note: gapNote(20, 10),
		},
		{
			name: clusterKillJava, cluster: cluster.LeaderKilledJava, who: both, once: true, large: true, turn: 120 * time.Second,
			set: faults(20), fewer: fewer(10), figures: faultFigures(cluster.FaultGap),
			note: gapNote(20, 10) + " The producer has its defaults, and sends 200 records a second.",
		},
		{
			name: clusterSilence, cluster: cluster.LeaderSilent, who: both, once: true, large: true, turn: 70 * time.Second,
			set: faults(5), fewer: fewer(5), figures: faultFigures(cluster.FaultGap),
			note: gapNote(5, 5) + " Nobody can know of it before broker.session.timeout.ms is over, 9 s in both.",
		},
		{
			name: clusterController, cluster: cluster.ControllerKilled, who: both, once: true, large: true, turn: 100 * time.Second,
			set: faults(20), fewer: fewer(10), figures: faultFigures(cluster.FaultChange),
			note: "20 times, with Apache Kafka 10 times; the quick suite has a fifth. Both other nodes are asked for a topic until one has made it.",
		},
		{
			name: clusterMany, cluster: cluster.Many, who: both, once: true, own: true, turn: 90 * time.Second,
			set: replicated(10_000, func(o *workload.Options) { o.Size = 100 }), fewer: thousand, figures: manyFigures(),
			note: "Apache Kafka has 1,000 partitions here. Each partition acknowledges a record in each step. The node that is killed leads the most partitions of all.",
		},
		{
			name: clusterIdle, cluster: cluster.Idle, who: both, once: true, own: true, turn: 60 * time.Second,
			set:     replicated(fewerPartitions, func(o *workload.Options) { o.Size, o.Settle, o.Duration = 100, 15*time.Second, 15*time.Second }),
			figures: clusterIdleFigures(), note: "Each partition has a record. The figures are those of the node that uses the most.",
		},
	}
}

// gapNote is the note of a row whose figure is a gap.
func gapNote(times, kafka int) string {
	note := fmt.Sprintf("The longest time between two acknowledgements of a client that produces all the time, RF 3, acks=all, %d times", times)
	if times != kafka {
		note += fmt.Sprintf(", with Apache Kafka %d times", kafka)
	}
	return note + "; the quick suite has a fifth."
}

// clusterClaims are the targets of clusters.
func clusterClaims() []claim {
	claimOf := func(workload string, f figure, most, toKafka float64) claim {
		return claim{row: "27", workload: workload, figure: f, leat: leatThree, kafka: kafkaThree, most: most, toKafka: toKafka}
	}
	latency, fault, idle, many := clusterLatencyFigures(), faultFigures(cluster.FaultGap), clusterIdleFigures(), manyFigures()
	const second = 1e6 // in microseconds
	rate := claimOf(clusterCatchUp, catchUpFigures()[0], 0, 0)
	rate.least = 300
	return []claim{
		claimOf(clusterProduce, cpuByteFigure(), 0, 5),
		claimOf(clusterLatency, latency[0], 0, 1),
		claimOf(clusterLatency, latency[1], 0, 1),
		claimOf(clusterLatency, latency[2], 0, 0),
		claimOf(clusterLatency, latency[4], 1.5, 0),
		rate,
		claimOf(clusterKill, fault[0], 0.3*second, 0),
		claimOf(clusterKill, fault[1], 2*second, 0),
		claimOf(clusterKillJava, fault[0], 0.3*second, 0),
		claimOf(clusterKillJava, fault[1], 2*second, 0),
		claimOf(clusterStop, fault[0], 0.1*second, 0),
		claimOf(clusterStop, fault[1], 0.1*second, 0),
		claimOf(clusterSilence, fault[1], 10*second, 0),
		claimOf(clusterController, faultFigures(cluster.FaultChange)[1], second, 0),
		claimOf(clusterMany, many[0], 0, 0),
		claimOf(clusterMany, many[2], 5, 0),
		claimOf(clusterMany, many[4], 0, 0),
		claimOf(clusterIdle, idle[0], 0.01, 0),
		claimOf(clusterIdle, idle[1], 40e6, 0),
	}
}

// leatCluster starts the leat at path three times.
func leatCluster(path string) *server.Program {
	token := func(places []server.Place) string { return filepath.Join(places[0].Dir, "..", "token") }
	return &server.Program{
		About: "three times leat up --data DIR --listen ADDR --http off" + strings.Join(settings(" --set "), "") +
			", the second and third with --join and --token-file at first",
		Ensemble: &server.Ensemble{
			Nodes: nodes,
			Invite: func(ctx context.Context, places []server.Place) error {
				made, err := exec.CommandContext(ctx, path, "cluster", "token", "--data", places[0].Dir).Output()
				if err != nil {
					return fmt.Errorf("cluster token: %w", err)
				}
				return os.WriteFile(token(places), made, 0o600)
			},
			Command: func(places []server.Place, node int, joins bool) (string, []string) {
				args := []string{"up", "--data", places[node].Dir, "--listen", places[node].Addr, "--http", "off", "--log-level", "warn"}
				if joins && node > 0 {
					args = append(args, "--join", places[0].Addr, "--token-file", token(places))
				}
				return path, append(args, settings("--set=")...)
			},
		},
	}
}

// kafkaCluster starts three of Apache Kafka's nodes, each a broker and a controller.
func kafkaCluster(kafka string) *server.Program {
	java := javaOf(kafka)
	return &server.Program{
		About: "three times java -Xmx1g -Xms1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 kafka.Kafka server.properties, " + kafkaVersion(kafka) +
			", KRaft, each a broker and a controller, defaults and" + strings.Join(settings(" "), ""),
		Ensemble: &server.Ensemble{
			Nodes: nodes,
			Prepare: func(ctx context.Context, places []server.Place) error {
				files, err := kafkaProperties(places)
				if err != nil {
					return err
				}
				id := newClusterID()
				for i, text := range files {
					if err := os.WriteFile(filepath.Join(places[i].Dir, "server.properties"), []byte(text), 0o600); err != nil {
						return err
					}
					if err := runFormat(ctx, java(places[i].Dir, "kafka.tools.StorageTool", "format", "-t", id, "-c")); err != nil {
						return err
					}
				}
				return nil
			},
			Command: func(places []server.Place, node int, _ bool) (string, []string) {
				return "java", java(places[node].Dir, "kafka.Kafka")
			},
		},
	}
}

// kafkaProperties are the properties of each node. Topics of Kafka's own have as many replicas as they would
// have by its defaults.
func kafkaProperties(places []server.Place) (files []string, err error) {
	controllers, err := server.FreeAddresses(len(places))
	if err != nil {
		return nil, err
	}
	voters := make([]string, len(controllers))
	for i, addr := range controllers {
		voters[i] = fmt.Sprintf("%d@%s", i+1, addr)
	}
	for i, p := range places {
		files = append(files, fmt.Sprintf(`process.roles=broker,controller
node.id=%[1]d
controller.quorum.voters=%[2]s
listeners=PLAINTEXT://%[3]s,CONTROLLER://%[4]s
advertised.listeners=PLAINTEXT://%[3]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[5]s
%[6]s
`, i+1, strings.Join(voters, ","), p.Addr, controllers[i], filepath.Join(p.Dir, "log"), strings.Join(settings(""), "\n")))
	}
	return files, nil
}

// measureCluster gives a turn a cluster that runs, or one of its own.
func (s *suite) measureCluster(ctx context.Context, w *row, c *runner) (r *workload.Result, err error) {
	s.topics++
	o := s.options(w, nil, &c.contender)
	o.Topic = fmt.Sprintf("bench-%d", s.topics)
	var on *server.Cluster
	if !w.own {
		on, err = s.findOrStartCluster(ctx, c.program)
	} else if err = s.stopClusters(); err == nil { // their idle nodes would cost something
		dir := filepath.Join(s.dir, fmt.Sprintf("own-%d", s.topics))
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		on, err = s.programs[c.program].StartCluster(ctx, dir)
		defer func() {
			if on != nil {
				err = errors.Join(err, on.Stop())
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	o.Brokers, o.PIDs = on.Brokers(), on.PIDs()
	workload.SyncDisks() // the disk must not be busy with an earlier run's records
	return w.cluster(ctx, on, o)
}

// findOrStartCluster returns the program's cluster, started if not all of its nodes run.
func (s *suite) findOrStartCluster(ctx context.Context, name string) (*server.Cluster, error) {
	if c := s.clusters[name]; c != nil {
		if c.Whole() {
			return c, nil
		}
		delete(s.clusters, name)
		if err := c.Stop(); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(s.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	c, err := s.programs[name].StartCluster(ctx, dir)
	if err != nil {
		return nil, err
	}
	s.clusters[name] = c
	if name != programKafkaThree {
		return c, nil
	}
	return c, s.warmCluster(ctx, c)
}

// warmCluster gives Java something to compile.
func (s *suite) warmCluster(ctx context.Context, c *server.Cluster) error {
	size := s.bytes / 2
	s.logf("warming %s up with 3 times %s", programKafkaThree, bench.FormatSize(float64(size)))
	for i, batch := range []int{16, 1, 500} {
		o := workload.Defaults()
		o.Brokers, o.Topic, o.Partitions, o.Replication = c.Brokers(), fmt.Sprintf("warm-%d", i), nodes, nodes
		o.Configs, o.Duration, o.Batch = []string{"file.delete.delay.ms=0"}, 10*time.Second, batch
		o.Records = size / int64(o.Size)
		if _, err := cluster.Produce(ctx, c, o); err != nil {
			return err
		}
	}
	return nil
}

// stopClusters ends all clusters that run.
func (s *suite) stopClusters() error {
	var failed []error
	for name, c := range s.clusters {
		failed = append(failed, c.Stop(), os.RemoveAll(filepath.Join(s.dir, name)))
	}
	clear(s.clusters)
	return errors.Join(slices.DeleteFunc(failed, func(err error) bool { return err == nil })...)
}
