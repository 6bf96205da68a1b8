package credential

import "errors"

// Errors of texts and files.
var (
	// ErrKeyFile is returned for a node.key that cannot be used.
	ErrKeyFile = errors.New("this is not the key of a node")
	// ErrPublicKey is returned for text that is not a public key.
	ErrPublicKey = errors.New("this is not the public key of a node")
	// ErrID is returned for text that is not the id of a cluster.
	ErrID = errors.New("this is not the id of a cluster")
	// ErrNotToken is returned for text that is something else than a join token.
	ErrNotToken = errors.New("this is not a join token")
	// ErrTokenTruncated is returned for the beginning of a token.
	ErrTokenTruncated = errors.New("the join token is cut short")
	// ErrTokenDamaged is returned for a token with wrong characters.
	ErrTokenDamaged = errors.New("the join token is damaged")
	// ErrTokenVersion is returned for a token that a newer or older binary made.
	ErrTokenVersion = errors.New("another version of leat made the join token")
)

// Errors that end a handshake. A dialler can get all of them but those that say "acceptor", and an
// acceptor all of them but those that say "dialler".
var (
	// ErrOrder is returned when a message comes out of turn, or after the handshake has ended.
	ErrOrder = errors.New("a message of the handshake came out of turn")
	// ErrMalformed is returned for bytes that are not the expected message.
	ErrMalformed = errors.New("a message of the handshake cannot be read")
	// ErrVersion is returned when the two ends have no version of the protocol in common.
	ErrVersion = errors.New("the two nodes have no version of the protocol between nodes in common")
	// ErrForeignCluster is returned when the ends, or a token and a directory, are of two clusters.
	ErrForeignCluster = errors.New("the node belongs to another cluster")
	// ErrRefused is returned to a dialler whose proof does not hold. It does not learn why.
	ErrRefused = errors.New("the node that answered does not accept the proof: it does not know this token or this node, or knows it with another key")
	// ErrWrongNode is returned to a dialler that another node answered than the one it wanted.
	ErrWrongNode = errors.New("another node answered")
	// ErrStranger is returned to a dialler when the one that answered does not prove that it is a
	// member of the cluster. A dialler with a token cannot tell this from a cluster that has
	// forgotten its token.
	ErrStranger = errors.New("the node that answered did not prove that it belongs to the cluster")

	// ErrUnbound is returned if the proofs must be bound to a connection with TLS, and cannot be.
	ErrUnbound = errors.New("the proof cannot be bound to the connection to the other node, so somebody on the way could read all that follows")

	// ErrUnknownToken is returned to an acceptor whose metadata does not have the token.
	ErrUnknownToken = errors.New("the cluster does not know the join token")
	// ErrUnknownNode is returned when the other end is not in the metadata.
	ErrUnknownNode = errors.New("the cluster does not know the node")
	// ErrWrongProof is returned to an acceptor if the token or the node is known and the proof does not hold.
	ErrWrongProof = errors.New("the proof does not hold")
)

// Errors that a dialler learns after it has proven itself. The verdict tells it, so that each means
// the same on both ends. The acceptor's caller may give them to Refuse.
var (
	// ErrTokenExpired says that the token has ended.
	ErrTokenExpired = errors.New("the join token has ended; make a new one with leat cluster token")
	// ErrTokenRevoked says that the token was revoked.
	ErrTokenRevoked = errors.New("the join token was revoked; make a new one with leat cluster token")
	// ErrTokenUsed says that another agent has used the token for an agent of a link.
	ErrTokenUsed = errors.New("the token was used by another agent, and is for one alone; make a new one with leat link agent-token")
	// ErrAgentTokenExpired says that a token for an agent was not used until its end.
	ErrAgentTokenExpired = errors.New("the token has ended before it was used; make a new one with leat link agent-token")
	// ErrNodeRemoved says that the dialler was removed from the cluster.
	ErrNodeRemoved = errors.New("the node was removed from the cluster and its key is worth nothing now; join with a new data directory and a new token")
	// ErrNodeAlive says that a living process has the dialler's node id.
	ErrNodeAlive = errors.New("another process is running as this node; stop it, and run no copy of a data directory")
	// ErrNodeIDTaken says that the joiner cannot have the node id that it wants.
	ErrNodeIDTaken = errors.New("the node id is another node's, or was a removed node's, and ids are not given again; " +
		"choose another one with --id, or leave it out")
	// ErrDiallerBehind says that the cluster was recovered without the dialler.
	ErrDiallerBehind = errors.New("the cluster was recovered without this node's data, which does not belong to it any more; " +
		"join with a new data directory and a new token")
	// ErrAcceptorBehind says that the cluster was recovered without the acceptor.
	ErrAcceptorBehind = errors.New("the node that answered has the data of the cluster from before it was recovered")
	// ErrUnavailable says that the cluster cannot decide now, or refused for a reason that has no
	// code. The dialler may try again.
	ErrUnavailable = errors.New("the cluster cannot let the node in now; try again")
)

// reason is the code of an error in a refusal or verdict. Codes are never used again.
type reason uint8

const (
	reasonNone      reason = 0
	reasonMalformed reason = 1
	reasonVersion   reason = 2
	reasonForeign   reason = 3
	reasonUnproven  reason = 4 // the last one that is told without proof
	reasonUnknown   reason = 30
)

// reasons maps the errors of refusals (up to reasonUnproven) and of verdicts to their codes.
var reasons = []struct {
	code reason
	err  error
}{
	{reasonMalformed, ErrMalformed},
	{reasonVersion, ErrVersion},
	{reasonForeign, ErrForeignCluster},
	{reasonUnproven, ErrRefused},
	{16, ErrTokenExpired},
	{17, ErrTokenRevoked},
	{18, ErrNodeRemoved},
	{19, ErrNodeAlive},
	{20, ErrNodeIDTaken},
	{21, ErrDiallerBehind},
	{22, ErrAcceptorBehind},
	{23, ErrTokenUsed},
	{24, ErrAgentTokenExpired},
	{reasonUnknown, ErrUnavailable},
}

// needsProof tells whether only a dialler that has proven itself may learn the reason.
func (r reason) needsProof() bool { return r > reasonUnproven }

// findReason returns the code for an error of a verdict.
func findReason(err error) reason {
	for _, r := range reasons {
		if r.code.needsProof() && errors.Is(err, r.err) {
			return r.code
		}
	}
	return reasonUnknown
}

// err is the error for a code. A newer acceptor may have codes that are not known here.
func (r reason) err() error {
	for _, known := range reasons {
		if known.code == r {
			return known.err
		}
	}
	return ErrUnavailable
}
