package peer

import "strconv"

// The range of private keys. They are not advertised, and nothing but the handshake is served to a
// connection that has not proven itself.
const (
	FirstKey int16 = 20000
	LastKey  int16 = 20063
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
	AuthorityShow    int16 = 20019 // show the certificate authority, whose key is sealed
	AuthoritySet     int16 = 20020 // replace the certificate authority
	SecuredShow      int16 = 20021 // tell a new node whether the cluster is secured, and what it needs then; it has a secret
	SecuringChange   int16 = 20022 // a step by which a plain cluster is secured while it runs
	SecuringShow     int16 = 20023 // how far a node is secured, who comes to it without TLS, and what ACLs would have denied
	Secure           int16 = 20024 // have the node secure its cluster while it runs, or say how far that is
)

// The private keys by which the sealing key of a secured cluster is replaced.
const (
	SealingKeep   int16 = 20025 // have a node take a sealing key from the node that asks, or keep no other one
	SealingRotate int16 = 20026 // have a node replace the sealing key of its cluster
)

// CertificateNote tells a node of a client's certificate that was made where its sealing key is.
const CertificateNote int16 = 20027

// LinksChange is a change of a link to another cluster, or of topics and partitions that mirror by one.
const LinksChange int16 = 20028

// The private keys by which links are managed.
const (
	LinksServe int16 = 20029 // have the node change, check or describe the links of its cluster; it may have a secret
	LinksShow  int16 = 20030 // what a node knows of the partitions that it mirrors
)

// The private keys by which a link has positions of consumer groups follow those of its source.
const (
	LinkPositions int16 = 20036 // what groups have that a node coordinates, and changes of that
	MirrorEnds    int16 = 20037 // up to where a node has the records of partitions that mirror
)

// The private keys by which people see, read and discard what cuts have taken from partitions.
const (
	TailsServe int16 = 20032 // have the node ask all nodes
	TailsShow  int16 = 20033 // have the node list, read or discard its own; it may have records
)

// AgentBytes carries bytes between a node and an agent of a link, both ways: see package mirror/tunnel.
const AgentBytes int16 = 20040

// privateKeys are the names of the keys, and whether a request is not answered.
var privateKeys = [...]struct {
	name   string
	oneWay bool
}{
	SealingKeep - FirstKey:      {name: "SealingKeep"},
	SealingRotate - FirstKey:    {name: "SealingRotate"},
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
	AuthorityShow - FirstKey:    {name: "AuthorityShow"},
	AuthoritySet - FirstKey:     {name: "AuthoritySet"},
	SecuredShow - FirstKey:      {name: "SecuredShow"},
	SecuringChange - FirstKey:   {name: "SecuringChange"},
	SecuringShow - FirstKey:     {name: "SecuringShow"},
	Secure - FirstKey:           {name: "Secure"},
	CertificateNote - FirstKey:  {name: "CertificateNote"},
	LinksChange - FirstKey:      {name: "LinksChange"},
	LinksServe - FirstKey:       {name: "LinksServe"},
	LinksShow - FirstKey:        {name: "LinksShow"},
	LinkPositions - FirstKey:    {name: "LinkPositions"},
	MirrorEnds - FirstKey:       {name: "MirrorEnds"},
	TailsServe - FirstKey:       {name: "TailsServe"},
	TailsShow - FirstKey:        {name: "TailsShow"},
	AgentBytes - FirstKey:       {name: "AgentBytes"},
}

// Handshake lists the keys of the handshake's requests, in order.
func Handshake() []int16 { return []int16{PeerHello, PeerProve} }

// BeyondHandshake lists the keys of all requests that only a proven connection may send.
func BeyondHandshake() (keys []int16) {
	for key := FirstKey; key <= LastKey; key++ {
		if isKnown(key) && !isHandshake(key) {
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
func isKnown(key int16) bool {
	return IsPrivate(key) && int(key-FirstKey) < len(privateKeys) && privateKeys[key-FirstKey].name != ""
}

// isHandshake tells whether a key belongs to the handshake.
func isHandshake(key int16) bool { return key == PeerHello || key == PeerProve }
