// Package credential has what nodes prove themselves with, and the handshake in which they do: a
// node's key (NodeKey, PublicKey), a join token (Token) and what the metadata keeps of it
// (Verifier), and the two machines of the handshake (Dialler, Acceptor).
//
// Everything here is pure. The caller gives the messages that came, the random bytes and the time,
// and sends, logs and stores. A machine belongs to one goroutine; all other types are values, which
// any goroutine may read.
//
// # The handshake
//
//	dialler                                                       acceptor
//	Hello    -- hello: versions, cluster, who I am, share ------>  Challenge
//	Prove    <- challenge: version, node, key, share, proof -----
//	         -- proof: signatures ------------------------------>  Verify
//	Finish   <- verdict: accepted, or why not; with a MAC -------  Accept, Refuse
//
//	Dialler:   new --Hello--> greeted --Prove--> proving --Finish--> done
//	Acceptor:  new --Challenge--> challenging --Verify--> proven --Accept or Refuse--> done
//	Each call that returns an error leads to failed, and so does a call out of turn. In failed every
//	call returns ErrOrder.
//
// An acceptor may send a refusal instead of a challenge or a verdict. A dialler that has proven
// nothing learns only these reasons: the message has no meaning, the versions do not overlap, the cluster is
// another one (the ids of clusters are no secret), or the proof does not hold. The last one is the
// same for an unknown token, a wrong secret, an unknown node and a wrong key, and up to there the
// acceptor does the same work and answers as many bytes. All other reasons are in verdicts.
//
// A refusal is not authenticated: someone on the path may have made it up. The caller may try again
// or report it, but must not delete anything because of it. A verdict is authenticated.
//
// # The kinds of proof
//
// A node and an administrator (a verb that holds a data directory) sign with the node's key, and
// know the acceptor's key, from the metadata or from the list that the last Welcome brought. A
// joiner knows no member's key. Both sides know something of the token instead:
//
//	secret (in the token's text only) --HKDF--> Ed25519 key pair   the joiner signs; the metadata has the public key
//	                                  --HKDF--> acceptor key       the acceptor makes a MAC; the metadata has it too
//
// The metadata could keep a hash of the secret and both sides make MACs with it. But then that hash
// is all that is needed to join, and every copy of the metadata log, on a removed node's disk or in
// a backup, would hold it. From a Verifier nobody can join. Its reader can only answer a joiner as
// if it were a member. That cannot be avoided by anything that all members can do and a removed one
// has seen, so the removal of a node must also revoke all tokens, which live for an hour or so.
//
// An agent of a link proves itself as a joiner does, by a token that was made for its link and by a key of its own. Its tokens are others
// (Directory.FindAgentToken), and its kind is in the transcript, so that neither kind of token is of any use as the other one. The first agent that uses a
// token becomes its holder: from then on the token needs that agent's key, too.
//
// The joiner signs with its own new key as well. Otherwise it could register a key that is another
// node's. The acceptor's MAC covers its node's public key, so the joiner learns that key by the
// token, and needs no list that is trusted at first sight.
//
// # The connection beneath
//
// From version 3 of the protocol on the proofs are bound to the connection that they are sent over (Channel). With TLS, the transcript has
// the value of tls-exporter (RFC 9266), which only the two ends of one connection with TLS have; without TLS it says that there is none. So
// somebody who ends TLS on the way, passes the handshake through, and would then read or change what follows, is refused by the dialler
// before that has proven anything, and so is who ends TLS on one side only. A connection with TLS that has no such value (TLS 1.2
// without the extended master secret) is refused. A Session tells whether it is bound (IsBound).
//
//	both ends speak version 3    bound, always
//	one end does not             as before: no session is bound
//	the dialler must bind        it says that it speaks no version before 3, so that an acceptor from before that refuses it
//
// A dialler must bind if it has not checked the acceptor's certificate (Channel.MustBind), or if its token needs TLS (Token.NeedsTLS). That no relay
// lowers the version is shown by the proofs, which cover the versions that both ends have said they speak. An acceptor does not insist: a
// dialler of an earlier version has to look after itself, by certificates.
//
// # Notes and vouchers
//
// From version 2 of the protocol on a node tells with its proof at which addresses it listens now, so that
// the other end finds it before the metadata have them, and how far it has the metadata log. That
// signature can be shown to the node later, also by somebody whom it does not know any more, when it has
// started with an older copy of its directory: see Voucher.
//
// # Texts
//
//	token        leat1.base64url(cluster id 16 | token id 8 | secret 16 | checksum 4)
//	             checksum: the first bytes of SHA-256("leat token checksum 1" | the 40 bytes before it)
//	token        leat2.base64url(flags 1 | cluster id 16 | token id 8 | secret 16 | checksum 4), over all before it; the flags
//	             are a sum of 1: it is used only over TLS, and bound; 2: it is for an agent of a link
//	             HKDF-SHA-256(secret, salt: cluster id | token id, info: "leat token joiner 1") is the seed of the
//	             joiner's key pair; with the info "leat token acceptor 1" it is the acceptor key
//	public key   ed25519:base64url(32 bytes)
//	node.key     lines: # comment, version=1, private=base64url(seed 32), public=text of the public key
//
// # The transcript
//
// All proofs are over a hash of every byte that was sent before, and are labelled with the role:
//
//	t = H(t, name, part) = SHA-256(t | length of the name 1 | name | length of the part 4 | part), first 32 zeros
//	t1: "hello"                   the hello; from version 3 on followed by "channel", the exporter of TLS, or nothing without TLS
//	t2: "challenge"               the challenge without its proofs
//	t3: "proof of the acceptor"   the challenge's proofs
//	t4: "proof of the dialler"    the proof
//	t5: "verdict"                 the verdict without its MAC
//
//	acceptor   signature (for a joiner a MAC, too) of "leat peer acceptor 1" | 0 | t2
//	dialler    signature of "leat peer dialler 1" | 0 | t3; a joiner's token signs "leat peer token 1" | 0 | t3;
//	           with a note, t3 is followed by "addresses" and "position", which are those parts of the proof,
//	           the position with the acceptor's public key behind it
//	both       HKDF(X25519 of the shares, salt: t4) with the info "leat peer session id 1" is the session's id,
//	           and with "leat peer verdict key 1" the key of the verdict's MAC, of "leat peer verdict 1" | 0 | t5
//
// So a proof is of no use in another session (the shares are new in each), from another role (the
// labels), over another connection with TLS (its exporter is in the transcript), for another name or version (they are, too). The verdict brings the keys
// of all members, which the dialler stores and trusts later: hence it has a MAC whose key only the
// two ends know. Data that follows the handshake is not protected by it. Without TLS, someone on
// the path can change that data.
//
// # Addresses
//
// In notes and verdicts of version 3 an address says how the listener there is protected, by Kafka's name: SASL_SSL://host:port. Nodes
// of earlier versions are sent host:port, and send that.
//
// # Messages
//
// Numbers are big-endian. The first byte is the kind of message, the second one the format, 1. A
// message without proof has at most MaxMessage bytes. A hello is always in the format of the lowest
// version that the dialler speaks, so that an older acceptor can read it and refuse in words.
//
//	hello      1 1 | min 2 | max 2 | kind 1 | cluster 16 | epoch 4 | share 32 |
//	               node:          node id 4 | incarnation 16
//	               administrator: node id 4
//	               joiner, agent: token id 8 | public key 32 | directory id 16 (an agent: zeros) | wanted node id 4 (an agent: any)
//	challenge  2 1 | min 2 | max 2 | version 2 | epoch 4 | node id 4 | public key 32 | share 32 |
//	               signature 64 | joiner, agent: MAC 32
//	proof      3 1 | signature 64 | joiner, agent: the token's signature 64 | node, from version 2 on: note
//	  note:    addresses 1 of (length 1 | text) | epoch 4, known entry 8 | voucher
//	  voucher: transcript before the position 32 | epoch 4, known entry 8, acceptor's key 32 | signature 64; zeros: none
//	verdict    4 1 | reason 1 | if it is 0: node id 4 | level 2 | members 2 of
//	               (node id 4 | public key 32 | addresses 1 of (length 1 | text)) | MAC 32
//	refusal    5 1 | reason 1 | min 2 | max 2
package credential
