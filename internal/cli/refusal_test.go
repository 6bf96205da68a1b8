package cli

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestConsumeRefusedByGroup proves that a group whose coordinator lets nobody in, as on a full disk, ends
// consume after the timeout, with the coordinator's last answer.
func TestConsumeRefusedByGroup(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	t.Cleanup(c.Close)
	c.ControlKey(kmsg.FindCoordinator.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		find := req.(*kmsg.FindCoordinatorRequest)
		res := find.ResponseKind().(*kmsg.FindCoordinatorResponse)
		res.ErrorCode = kerr.CoordinatorNotAvailable.Code
		for _, key := range find.CoordinatorKeys {
			one := kmsg.NewFindCoordinatorResponseCoordinator()
			one.Key, one.ErrorCode = key, kerr.CoordinatorNotAvailable.Code
			res.Coordinators = append(res.Coordinators, one)
		}
		return res, nil, true
	})
	code, words := runVerb(t, "consume", "t", "--group", "g", "--count", "1", "--timeout", "1s", "-b", c.ListenAddrs()[0])
	if code != exitUnreachable || !strings.Contains(words, "group g has not let us in for 1s") || !strings.Contains(words, "COORDINATOR_NOT_AVAILABLE") ||
		!strings.Contains(words, "disk is full") {
		t.Errorf("exit code %d, %q", code, words)
	}
}
