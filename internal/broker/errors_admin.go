package broker

import (
	"context"
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/quorum"
)

// The authorised operations that Kafka shows if there is no authorizer: all that exist for
// the kind of resource, one bit for each.
const (
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
	notAsked          = -1 << 31
)

// refusalCode is the code for a refusal of the controller.
func refusalCode(k controller.Kind) *kerr.Error {
	switch k {
	case controller.InvalidRequest:
		return kerr.InvalidRequest
	case controller.InvalidTopic:
		return kerr.InvalidTopicException
	case controller.TopicExists:
		return kerr.TopicAlreadyExists
	case controller.UnknownTopic:
		return kerr.UnknownTopicOrPartition
	case controller.UnknownTopicID:
		return kerr.UnknownTopicID
	case controller.InvalidPartitions:
		return kerr.InvalidPartitions
	case controller.InvalidReplicationFactor:
		return kerr.InvalidReplicationFactor
	case controller.InvalidAssignment:
		return kerr.InvalidReplicaAssignment
	case controller.InvalidConfig:
		return kerr.InvalidConfig
	case controller.PolicyViolation:
		return kerr.PolicyViolation
	default:
		return kerr.UnknownServerError
	}
}

// outcomeOf is the code and the message of one item of a command: that of the failure of
// the whole command, of the refusal of the item, or of success.
func outcomeOf(refused *controller.Error, failed error) (code int16, message *string) {
	switch {
	case failed != nil:
		e := commandError(failed)
		if e == kerr.RequestTimedOut {
			return e.Code, nil // as in Kafka
		}
		if why := diskTrouble(failed); why != "" {
			return e.Code, &why
		}
		return e.Code, &e.Description
	case refused == nil:
		return none, nil
	}
	e := refusalCode(refused.Kind)
	if refused.Message == "" {
		return e.Code, &e.Description
	}
	return e.Code, &refused.Message
}

// diskTrouble is a sentence that says why the metadata log takes no changes, or "" if that is not
// why a command failed. Kafka's code for it says only that the error is unexpected.
func diskTrouble(err error) string {
	for _, known := range []error{quorum.ErrDiskFull, quorum.ErrFaulted, quorum.ErrNotApplied} {
		if errors.Is(err, known) {
			return strings.TrimPrefix(known.Error(), "quorum: ")
		}
	}
	return ""
}

// commandError is the code of a command that failed as a whole.
func commandError(err error) *kerr.Error {
	switch {
	case errors.Is(err, quorum.ErrNotLeader):
		return kerr.NotController
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return kerr.RequestTimedOut
	case errors.Is(err, quorum.ErrTooLarge):
		return kerr.PolicyViolation
	default:
		return kerr.UnknownServerError
	}
}

// withTimeout returns a context that ends after a command's time-out, or when the node stops.
func (b *Broker) withTimeout(timeoutMillis int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.cfg.Context(), max(0, config.Millis(int64(timeoutMillis))))
}
