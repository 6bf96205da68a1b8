package group

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
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

// code is what a client gets for an error of the coordinator's log: where this node
// leads no longer or its disk is broken it should look for another coordinator,
// where there is no room or too few replicas it should try again.
func code(err error) int16 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, coord.ErrLoading):
		return loadInProgress
	case errors.Is(err, storage.ErrDiskFull), errors.Is(err, replica.ErrNotEnoughReplicas), errors.Is(err, replica.ErrTimedOut):
		return coordinatorNotAvailable
	case errors.Is(err, coord.ErrNotLeading), errors.Is(err, replica.ErrNotLeader), errors.Is(err, replica.ErrFencedEpoch),
		errors.Is(err, storage.ErrFaulted), errors.Is(err, storage.ErrClosed):
		return notCoordinator
	}
	return unknownServerError
}

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
