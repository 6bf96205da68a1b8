package peer

import "strconv"

// The range of private keys. They are not advertised, and nothing but the handshake is served to a
// connection that has not proven itself.
const (
	FirstKey int16 = 20000
	LastKey  int16 = 20031
)

// The private keys. A number is never used for something else.
const (
	PeerHello        int16 = 20000 // the handshake begins: hello, challenge
	PeerProve        int16 = 20001 // the handshake ends: proof, verdict
	QuorumMessages   int16 = 20002 // messages of the metadata quorum's members; not answered
	PullMetadata     int16 = 20003 // committed entries of the metadata log
	MetadataSnapshot int16 = 20004 // a part of a snapshot of the metadata
	Forward          int16 = 20005 // a client's request to the active controller
	DurableEnds      int16 = 20006 // how far a follower's logs are durable; not answered
	TokenMake        int16 = 20007 // make a join token
	TokenRevoke      int16 = 20008 // revoke a join token
	NodeRemove       int16 = 20009 // remove a node from the cluster
	Finalize         int16 = 20010 // raise the level of the metadata
	ReplicaFetch     int16 = 20011 // a follower's request for records
	AlterInSync      int16 = 20012 // a leader's proposals for in-sync sets
	NodeRegister     int16 = 20013 // register a node at its start
	NodeHeartbeat    int16 = 20014 // a node is alive
	NodeAdmit        int16 = 20015 // admit a node that has proven to have a token
	ProducerIDs      int16 = 20016 // reserve producer ids
	TopicsEnsure     int16 = 20017 // make topics, of which only the names are known, if they are missing
	TokenList        int16 = 20018 // list the join tokens
)

// privateKeys are the names of the keys, and whether a request is not answered.
var privateKeys = [...]struct {
	name   string
	oneWay bool
}{
	PeerHello - FirstKey:        {name: "PeerHello"},
	PeerProve - FirstKey:        {name: "PeerProve"},
	QuorumMessages - FirstKey:   {name: "QuorumMessages", oneWay: true},
	PullMetadata - FirstKey:     {name: "PullMetadata"},
	MetadataSnapshot - FirstKey: {name: "MetadataSnapshot"},
	Forward - FirstKey:          {name: "Forward"},
	DurableEnds - FirstKey:      {name: "DurableEnds", oneWay: true},
	TokenMake - FirstKey:        {name: "TokenMake"},
	TokenRevoke - FirstKey:      {name: "TokenRevoke"},
	NodeRemove - FirstKey:       {name: "NodeRemove"},
	Finalize - FirstKey:         {name: "Finalize"},
	ReplicaFetch - FirstKey:     {name: "ReplicaFetch"},
	AlterInSync - FirstKey:      {name: "AlterInSync"},
	NodeRegister - FirstKey:     {name: "NodeRegister"},
	NodeHeartbeat - FirstKey:    {name: "NodeHeartbeat"},
	NodeAdmit - FirstKey:        {name: "NodeAdmit"},
	ProducerIDs - FirstKey:      {name: "ProducerIDs"},
	TopicsEnsure - FirstKey:     {name: "TopicsEnsure"},
	TokenList - FirstKey:        {name: "TokenList"},
}

// Handshake lists the keys of the handshake's requests, in order.
func Handshake() []int16 { return []int16{PeerHello, PeerProve} }

// BeyondHandshake lists the keys of all requests that only a proven connection may send.
func BeyondHandshake() (keys []int16) {
	for key := FirstKey; isKnown(key); key++ {
		if !isHandshake(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// IsPrivate tells whether a key belongs to the private ones, also if no request has it yet.
func IsPrivate(key int16) bool { return key >= FirstKey && key <= LastKey }

// IsOneWay tells whether requests with a private key are not answered.
func IsOneWay(key int16) bool { return isKnown(key) && privateKeys[key-FirstKey].oneWay }

// NameOf is the name of a private key.
func NameOf(key int16) string {
	if isKnown(key) {
		return privateKeys[key-FirstKey].name
	}
	return "private key " + strconv.Itoa(int(key))
}

// isKnown tells whether there are requests with a private key.
func isKnown(key int16) bool { return IsPrivate(key) && int(key-FirstKey) < len(privateKeys) }

// isHandshake tells whether a key belongs to the handshake.
func isHandshake(key int16) bool { return key == PeerHello || key == PeerProve }
