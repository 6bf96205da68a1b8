package coord

import "testing"

// TestPartitionOf proves that groups are where Kafka looks for them.
func TestPartitionOf(t *testing.T) {
	f := func(group string, n, want int32) {
		t.Helper()
		if got := PartitionOf(group, n); got != want {
			t.Errorf("%q of %d: %d, want %d", group, n, got, want)
		}
	}
	f("", 50, 0)
	f("console-consumer-12345", 50, 6)
	f("my-group", 50, 12) // its hash is negative
	f("connect-cluster", 50, 13)
	f("héllo", 50, 34)
	f("😀", 50, 49)                 // two units of UTF-16
	f("polygenelubricants", 50, 0) // its hash is the smallest number, which has no positive
}
