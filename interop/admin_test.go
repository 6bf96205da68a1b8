package interop

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestVersionIsGuessed proves that the library which most Go tools guess a broker's
// version with takes it for one of today and not for one of before 1.0.
func TestVersionIsGuessed(t *testing.T) {
	t.Parallel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(shared(t, quick).addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	versions, err := kadm.NewClient(cl).ApiVersions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	versions.Each(func(v kadm.BrokerApiVersions) {
		if guess := v.VersionGuess(); v.Err != nil || !strings.Contains(guess, "v3") && !strings.Contains(guess, "v4") {
			t.Errorf("broker %d is guessed to be %q, %v", v.NodeID, guess, v.Err)
		}
	})
}

// TestSaramaAdmin proves that the admin client of Sarama, which kaf, kafka_exporter and
// others are built on, gets Kafka's answers for what a broker has none of.
func TestSaramaAdmin(t *testing.T) {
	t.Parallel()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V4_1_0_0
	admin, err := sarama.NewClusterAdmin([]string{shared(t, quick).addr}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	topic := fmt.Sprintf("sarama.admin.%d", names.Add(1))
	compact := map[string]*string{"cleanup.policy": new("compact")} // of which the answers carry a note
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: -1, ReplicationFactor: -1, ReplicaAssignment: map[int32][]int32{0: {1}, 1: {1}}, ConfigEntries: compact}, false); err != nil {
		t.Fatal(err)
	}
	if err := admin.AlterConfig(sarama.TopicResource, topic, compact, false); err != nil {
		t.Errorf("configs: %v", err)
	}
	entries := map[string]sarama.IncrementalAlterConfigsEntry{"cleanup.policy": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: new("compact")}}
	if err := admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false); err != nil {
		t.Errorf("a config: %v", err)
	}
	if _, err := admin.ListAcls(sarama.AclFilter{ResourceType: sarama.AclResourceAny, ResourcePatternTypeFilter: sarama.AclPatternAny, Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny}); !errors.Is(err, sarama.ErrSecurityDisabled) {
		t.Errorf("ACLs: %v", err)
	}
	if users, err := admin.DescribeUserScramCredentials([]string{"nobody"}); err != nil || len(users) != 1 || users[0].ErrorCode != 91 {
		t.Errorf("users: %v, %v", users, err)
	}
	if quotas, err := admin.DescribeClientQuotas(nil, false); err != nil || len(quotas) != 0 {
		t.Errorf("quotas: %v, %v", quotas, err)
	}
	if err := admin.AlterPartitionReassignments(topic, [][]int32{{1}, {1}}); err != nil {
		t.Errorf("the same replicas: %v", err)
	}
	if err := admin.AlterPartitionReassignments(topic, [][]int32{{9}, {1}}); err == nil {
		t.Error("a partition was assigned to a broker that there is not")
	}
	if moves, err := admin.ListPartitionReassignments(topic, []int32{0, 1}); err != nil || len(moves[topic]) != 0 {
		t.Errorf("reassignments: %v, %v", moves, err)
	}
	elected, err := admin.ElectLeaders(sarama.PreferredElection, map[string][]int32{topic: {0, 1}})
	if err != nil || len(elected[topic]) != 2 || !errors.Is(elected[topic][1].ErrorCode, sarama.ErrElectionNotNeeded) {
		t.Errorf("elections: %v, %v", elected, err)
	}
	if _, err := admin.DescribeLogDirs([]int32{1}); err != nil {
		t.Errorf("log directories: %v", err)
	}
}
