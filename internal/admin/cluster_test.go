package admin

import (
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestDescribeClusterBesideAHungBroker proves that a broker which takes connections and never answers does not
// hold up what the others tell.
func TestDescribeClusterBesideAHungBroker(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	c := kfake.MustCluster(kfake.NumBrokers(2), kfake.SeedTopics(6, "t"))
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); err != nil { // it knows the brokers from then on
		t.Fatal(err)
	}
	if err := cl.UpdateSeedBrokers(append([]string{hung.Addr().String()}, c.ListenAddrs()...)...); err != nil {
		t.Fatal(err)
	}
	for range 10 { // a client that asks any broker asks the hung one at some time
		got, err := DescribeCluster(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Brokers) != 2 || got.Partitions != 6 || got.Topics != 1 || got.Brokers[0].Leads+got.Brokers[1].Leads != 6 {
			t.Fatalf("%+v", got)
		}
	}
}
