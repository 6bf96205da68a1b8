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

// refusalCodes are the codes for refusals of the controller.
var refusalCodes = [...]*kerr.Error{
	controller.InvalidRequest:              kerr.InvalidRequest,
	controller.InvalidTopic:                kerr.InvalidTopicException,
	controller.TopicExists:                 kerr.TopicAlreadyExists,
	controller.UnknownTopic:                kerr.UnknownTopicOrPartition,
	controller.UnknownTopicID:              kerr.UnknownTopicID,
	controller.InvalidPartitions:           kerr.InvalidPartitions,
	controller.InvalidReplicationFactor:    kerr.InvalidReplicationFactor,
	controller.InvalidAssignment:           kerr.InvalidReplicaAssignment,
	controller.InvalidConfig:               kerr.InvalidConfig,
	controller.PolicyViolation:             kerr.PolicyViolation,
	controller.UnknownPartition:            kerr.UnknownTopicOrPartition,
	controller.InconsistentClusterID:       kerr.InconsistentClusterID,
	controller.InvalidRegistration:         kerr.InvalidRegistration,
	controller.DuplicateBroker:             kerr.DuplicateBrokerRegistration,
	controller.UnsupportedFeature:          kerr.UnsupportedVersion,
	controller.BrokerNotRegistered:         kerr.BrokerIDNotRegistered,
	controller.StaleBrokerEpoch:            kerr.StaleBrokerEpoch,
	controller.NotController:               kerr.NotController,
	controller.FencedLeaderEpoch:           kerr.FencedLeaderEpoch,
	controller.InvalidUpdate:               kerr.InvalidUpdateVersion,
	controller.IneligibleReplica:           kerr.IneligibleReplica,
	controller.NewLeaderElected:            kerr.NewLeaderElected,
	controller.ElectionNotNeeded:           kerr.ElectionNotNeeded,
	controller.PreferredLeaderNotAvailable: kerr.PreferredLeaderNotAvailable,
	controller.EligibleLeadersNotAvailable: kerr.EligibleLeadersNotAvailable,
	controller.NoReassignment:              kerr.NoReassignmentInProgress,
	controller.UnknownToken:                kerr.ResourceNotFound,
	controller.TopicDenied:                 kerr.TopicAuthorizationFailed,
	controller.GroupDenied:                 kerr.GroupAuthorizationFailed,
	controller.ClusterDenied:               kerr.ClusterAuthorizationFailed,
	controller.DuplicateResource:           kerr.DuplicateResource,
	controller.UnacceptableCredential:      kerr.UnacceptableCredential,
	controller.UnsupportedMechanism:        kerr.UnsupportedSaslMechanism,
	controller.UnknownCredential:           kerr.ResourceNotFound,
	controller.ThrottlingQuotaExceeded:     kerr.ThrottlingQuotaExceeded,
	controller.DelegationTokensOff:         kerr.DelegationTokenAuthDisabled,
	controller.DelegationTokenDenied:       kerr.DelegationTokenAuthorizationFailed,
	controller.DelegationTokenNotAllowed:   kerr.DelegationTokenRequestNotAllowed,
	controller.UnknownDelegationToken:      kerr.DelegationTokenNotFound,
	controller.EndedDelegationToken:        kerr.DelegationTokenExpired,
	controller.DelegationTokenOfOther:      kerr.DelegationTokenOwnerMismatch,
	controller.InvalidPrincipalType:        kerr.InvalidPrincipalType,
	controller.UnknownLink:                 kerr.ResourceNotFound,
}

// deniedText is Kafka's text for a client that may not do something.
func deniedText(e *kerr.Error) string {
	switch e {
	case kerr.TopicAuthorizationFailed:
		return "Topic authorization failed."
	case kerr.GroupAuthorizationFailed:
		return "Group authorization failed."
	case kerr.TransactionalIDAuthorizationFailed:
		return "Transactional Id authorization failed."
	}
	return e.Description
}

// refusalCode is the code for a refusal of the controller.
func refusalCode(k controller.Kind) *kerr.Error {
	if int(k) < len(refusalCodes) && refusalCodes[k] != nil {
		return refusalCodes[k]
	}
	return kerr.UnknownServerError
}

// refusalText is what a code means, in Kafka's words, for a refusal without a message.
func refusalText(k controller.Kind, e *kerr.Error) *string {
	switch k {
	case controller.ElectionNotNeeded, controller.PreferredLeaderNotAvailable, controller.EligibleLeadersNotAvailable:
		return new(e.Description + ".") // Kafka's sentences have an end
	default:
		return &e.Description
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
		if why := explainFailure(failed); why != "" {
			return e.Code, &why
		}
		return e.Code, &e.Description
	case refused == nil:
		return none, nil
	}
	e := refusalCode(refused.Kind)
	if refused.Message == "" {
		return e.Code, refusalText(refused.Kind, e)
	}
	return e.Code, &refused.Message
}

// explainFailure is a sentence that says why the metadata log takes no changes, or why the active
// controller cannot be asked, or "" if that is not why a command failed. Kafka's code for it says less.
func explainFailure(err error) string {
	for _, known := range []error{quorum.ErrDiskFull, quorum.ErrFaulted, quorum.ErrNotApplied, errLargeRequest, errLargeAnswer} {
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
	case errors.Is(err, quorum.ErrTooLarge), errors.Is(err, errLargeRequest), errors.Is(err, errLargeAnswer):
		return kerr.PolicyViolation
	default:
		return kerr.UnknownServerError
	}
}

// withTimeout returns a context that ends after a command's time-out, or when the node stops.
func (b *Broker) withTimeout(timeoutMillis int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.cfg.Context(), max(0, config.Millis(int64(timeoutMillis))))
}
