package classic

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/errcode"
)

// Kafka's codes for what a coordinator answers.
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

// code is what a client gets for an error of the coordinator's log.
func code(err error) int16 { return errcode.OfCoordinator(err) }

// JoinFailure refuses a JoinGroup.
func JoinFailure(memberID string, code int16) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.MemberID, resp.ErrorCode = memberID, code
	return resp
}

// SyncFailure refuses a SyncGroup.
func SyncFailure(code int16) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ErrorCode = code
	return resp
}

// replyJoin makes resp the answer, or a failure where its records are lost.
func replyJoin(s *coord.Step, reply func(*kmsg.JoinGroupResponse), resp *kmsg.JoinGroupResponse) {
	s.Reply(func(err error) {
		if err != nil {
			resp = JoinFailure(resp.MemberID, code(err))
		}
		reply(resp)
	})
}

func replySync(s *coord.Step, reply func(*kmsg.SyncGroupResponse), resp *kmsg.SyncGroupResponse) {
	s.Reply(func(err error) {
		if err != nil {
			resp = SyncFailure(code(err))
		}
		reply(resp)
	})
}
