package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// transactions shows and ends open transactions by the tool: one by its transactional id, and one by where it begins in a partition,
// as an administrator ends one that hangs.
func (b toolbox) transactions(t *testing.T) {
	topic := fmt.Sprintf("tools.transactions.%d", names.Add(1))
	b.do(t, topicsTool, "", "--create", "--topic", topic, "--partitions", "1")
	open := func(id string) *kgo.Client {
		cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.addr, ",")...), kgo.TransactionalID(id), kgo.DefaultProduceTopic(topic))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return cl
	}
	at := []string{"--topic", topic, "--partition", "0"}
	named := open(topic + ".named")
	matches(t, b.do(t, transactionsTool, "", "list"), `^`+topic+`\.named\s+\d+\s+\d+\s+Ongoing`)
	matches(t, b.do(t, transactionsTool, "", "describe", "--transactional-id", topic+".named"), `\s`+topic+`\.named\s+\d+\s+\d+\s+Ongoing\s.*\s`+topic+`-0\s*$`)
	matches(t, b.do(t, transactionsTool, "", append([]string{"describe-producers"}, at...)...), `^\d+\s+\d+\s+-1\s+0\s+\d+\s+0\s*$`)
	lacks(t, b.do(t, transactionsTool, "", append([]string{"find-hanging"}, at...)...), topic)
	b.do(t, transactionsTool, "", "forceTerminateTransaction", "--transactionalId", topic+".named")
	if err := named.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("a transaction was committed that the tool has aborted")
	}

	open(topic + ".placed") // behind the record and the marker of the first one
	matches(t, b.do(t, transactionsTool, "", append([]string{"describe-producers"}, at...)...), `\s2\s*$`)
	b.do(t, transactionsTool, "", append(append([]string{"abort"}, at...), "--start-offset", "2")...)
	out := b.do(t, transactionsTool, "", append([]string{"describe-producers"}, at...)...)
	if n := strings.Count(out, "None"); n != 2 {
		t.Errorf("of 2 producers %d have no open transaction:\n%s", n, out)
	}
}
