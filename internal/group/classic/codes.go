package classic

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/errcode"
)

// Kafka's error codes in a coordinator's answers.
const (
	coordinatorNotAvailable   int16 = 15
	notCoordinator            int16 = 16
	illegalGeneration         int16 = 22
	inconsistentGroupProtocol int16 = 23
	unknownMemberID           int16 = 25
	rebalanceInProgress       int16 = 27
	memberIDRequired          int16 = 79
	groupMaxSizeReached       int16 = 81
	fencedInstanceID          int16 = 82
)

// codeOf is the error code that a client gets for an error of the coordinator's log.
func codeOf(err error) int16 { return errcode.OfCoordinator(err) }

// JoinFailure is the answer to a JoinGroup that is refused.
func JoinFailure(memberID string, code int16) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.MemberID, resp.ErrorCode = memberID, code
	return resp
}

// SyncFailure is the answer to a SyncGroup that is refused.
func SyncFailure(code int16) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ErrorCode = code
	return resp
}

// replyJoin answers a JoinGroup with resp once the step's records are committed, or with
// a failure if they cannot be.
func replyJoin(s *coord.Step, reply func(*kmsg.JoinGroupResponse), resp *kmsg.JoinGroupResponse) {
	s.Reply(func(err error) {
		if err != nil {
			resp = JoinFailure(resp.MemberID, codeOf(err))
		}
		reply(resp)
	})
}

// replySync answers a SyncGroup with resp once the step's records are committed, or with
// a failure if they cannot be.
func replySync(s *coord.Step, reply func(*kmsg.SyncGroupResponse), resp *kmsg.SyncGroupResponse) {
	s.Reply(func(err error) {
		if err != nil {
			resp = SyncFailure(codeOf(err))
		}
		reply(resp)
	})
}
