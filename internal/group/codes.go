package group

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/errcode"
)

// Kafka's codes for what a coordinator answers.
const (
	unknownServerError        int16 = -1
	invalidCommitOffsetSize   int16 = 28
	loadInProgress            int16 = 14
	coordinatorNotAvailable   int16 = 15
	notCoordinator            int16 = 16
	offsetMetadataTooLarge    int16 = 12
	illegalGeneration         int16 = 22
	inconsistentGroupProtocol int16 = 23
	invalidGroupID            int16 = 24
	invalidRequest            int16 = 42
	unknownMemberID           int16 = 25
	invalidSessionTimeout     int16 = 26
	rebalanceInProgress       int16 = 27
	nonEmptyGroup             int16 = 68
	groupIDNotFound           int16 = 69
	memberIDRequired          int16 = 79
	groupMaxSizeReached       int16 = 81
	fencedInstanceID          int16 = 82
	groupSubscribedToTopic    int16 = 86
)

// code is what a client gets for an error of the coordinator's log.
func code(err error) int16 { return errcode.OfCoordinator(err) }

// codeOr is the code of an error, where there is one, else c.
func codeOr(err error, c int16) int16 {
	if err != nil {
		return code(err)
	}
	return c
}

func joinFailure(memberID string, code int16) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.MemberID, resp.ErrorCode = memberID, code
	return resp
}

func syncFailure(code int16) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ErrorCode = code
	return resp
}

// replyJoin makes resp the answer, or a failure where its records are lost.
func replyJoin(s *coord.Step, reply func(*kmsg.JoinGroupResponse), resp *kmsg.JoinGroupResponse) {
	s.Reply(func(err error) {
		if err != nil {
			resp = joinFailure(resp.MemberID, code(err))
		}
		reply(resp)
	})
}

func replySync(s *coord.Step, reply func(*kmsg.SyncGroupResponse), resp *kmsg.SyncGroupResponse) {
	s.Reply(func(err error) {
		if err != nil {
			resp = syncFailure(code(err))
		}
		reply(resp)
	})
}
