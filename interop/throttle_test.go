package interop

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestThrottledClients proves that clients are told of a quota that was set with Kafka's tool: they wait, and say for how long.
func TestThrottledClients(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	s := sharedSecured(t)
	box := s.tools(t)
	for _, name := range []string{"kcat", "franz-go", "kafka-clients", "confluent-kafka"} {
		c := contenders[slices.IndexFunc(contenders, func(c contender) bool { return c.name == name })]
		user := "slow." + name
		of := []string{"--entity-type", "users", "--entity-name", user}
		box.do(t, configsTool, "", append(of, "--alter", "--add-config", "producer_byte_rate=50000")...)
		t.Run(name, func(t *testing.T) {
			for _, k := range c.kits {
				k.have(t)
			}
			s.addClient(t, user)
			topic := fmt.Sprintf("%s.open.%d", user, names.Add(1))
			createTopic(t, s.broker, topic, 1, nil)
			d := start(t, name, c.driver(t))
			// 600 kB are 60 kB/s over the windows of a quota, a fifth above it: two seconds.
			write := request{
				Op: "produce", Addr: s.at(loginListener), Topic: topic, Codec: "none", Acks: "all", File: writeRecords(t, blocks(12)), Login: s.login(t, user, byPlain),
			}
			if a := d.must(t, write); a.ThrottleMS < 100 || a.ThrottleMS > 10_000 {
				t.Errorf("throttled for %d ms, want about 2000\n\t%s", a.ThrottleMS, d.said())
			}
			box.do(t, configsTool, "", append(of, "--alter", "--delete-config", "producer_byte_rate")...)
			if a := d.must(t, write); a.ThrottleMS != 0 {
				t.Errorf("throttled for %d ms without a quota", a.ThrottleMS)
			}
		})
	}
}

// blocks returns records of 50 kB each, of letters.
func blocks(n int) (all []record) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range n {
		value := make([]byte, 50_000)
		for i := range value {
			value[i] = byte('a' + rng.IntN(26))
		}
		all = append(all, record{Value: value})
	}
	return all
}
