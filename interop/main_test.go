package interop

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"testing"
)

// driverEnv names the Go driver that this binary is to be, instead of the suite.
const driverEnv = "LEAT_INTEROP_DRIVER"

// TestMain runs the suite, or is one of its drivers.
func TestMain(m *testing.M) {
	if name := os.Getenv(driverEnv); name != "" {
		if err := runGoDriver(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	flag.Parse()
	if !wasSet("test.parallel") {
		// Clients wait more than they work: rebalances and session timeouts take
		// their seconds whatever the machine is.
		_ = flag.Set("test.parallel", "6")
	}
	m.Run()
	stopBrokers()
}

func wasSet(name string) bool {
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func runGoDriver(name string) error {
	drivers := map[string]func() ops{
		"franz-go": franzDriver,
		"sarama":   saramaDriver,
		"kafka-go": kafkaGoDriver,
		"kcat":     kcatDriver,
	}
	d, ok := drivers[name]
	if !ok {
		return fmt.Errorf("no Go driver is called %q", name)
	}
	return d().serve(os.Stdin, os.Stdout)
}

// hash is a short fingerprint of content, for messages.
func hash(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:8]
}
