package interop

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// driverEnv names the Go driver that this binary is to be, instead of the suite.
const driverEnv = "LEAT_INTEROP_DRIVER"

// TestMain runs the suite, or is one of its drivers, or what stands in for docker.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "docker" {
		if err := askDocker(os.Getenv(dockerEnv), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // docker ends with a status, and no test of this binary has begun
		}
		return
	}
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
