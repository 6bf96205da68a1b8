package group

import (
	"github.com/leatstream/leat/internal/errcode"
)

// Kafka's error codes in a coordinator's answers.
const (
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
	rebalanceInProgress       int16 = 27
	invalidSessionTimeout     int16 = 26
	nonEmptyGroup             int16 = 68
	groupIDNotFound           int16 = 69
	groupSubscribedToTopic    int16 = 86
	unstableOffsetCommit      int16 = 88
)

// codeOf is the error code that a client gets for an error of the coordinator's log.
func codeOf(err error) int16 { return errcode.OfCoordinator(err) }

// codeOr is the code of an error, or c if the error is nil.
func codeOr(err error, c int16) int16 {
	if err != nil {
		return codeOf(err)
	}
	return c
}

func stringOrEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
