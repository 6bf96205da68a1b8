package quorum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// This is the form in which a message travels. Numbers are little-endian. It is bounded: a
// message has at most maxMessageBytes and maxMessageEntries entries, and its decoded form is at
// most a few times as large.
//
//	message = version u8 | cluster (size u8, text) | type u8 | flags u8
//	          to, from, term, log term, index, commit, reject hint: u64 each
//	          size u8, context | snapshot, if there is one | entries, as in frame.go
//	snapshot = index u64 | term u64 | members
//	pulled  = version u8 | cluster | member, leader, term, commit, snapshot's index: u64 each
//	          previous index u64 | previous term u64 | members | entries
//	part    = version u8 | cluster | size of the whole u64 | bytes
const (
	messageVersion    = 1
	messageFixed      = 7 * 8
	pulledFixed       = 7 * 8
	maxMessageBytes   = MaxProposal + 4<<20
	maxMessageEntries = 1 << 16
	maxContext        = 64

	flagReject   = 1
	flagSnapshot = 2
)

var errForeign = errors.New("it is of another cluster")

// Message is a message for another member.
type Message struct {
	To   uint64 // raft's id of it
	Data []byte // for Node.Step
}

func appendHead(b []byte, cluster string) []byte {
	b = append(b, messageVersion, byte(len(cluster)))
	return append(b, cluster...)
}

// cutHead checks the beginning of a message and returns the bytes after it.
func cutHead(b []byte, cluster string) ([]byte, error) {
	switch {
	case len(b) > maxMessageBytes:
		return nil, fmt.Errorf("%w: %d bytes", ErrMessage, len(b))
	case len(b) < 2 || len(b) < 2+int(b[1]):
		return nil, fmt.Errorf("%w: it is cut short", ErrMessage)
	case b[0] != messageVersion:
		return nil, fmt.Errorf("%w: version %d", ErrMessage, b[0])
	case string(b[2:2+b[1]]) != cluster:
		return nil, fmt.Errorf("%w: %w", ErrMessage, errForeign)
	}
	return b[2+b[1]:], nil
}

func appendUints(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// cutUints decodes numbers at the beginning of b.
func cutUints(b []byte, numbers ...*uint64) []byte {
	for _, n := range numbers {
		*n = binary.LittleEndian.Uint64(b)
		b = b[8:]
	}
	return b
}

// encodeMessage encodes a message of raft. A snapshot's data does not travel with it.
func encodeMessage(cluster string, m *pb.Message) []byte {
	size := 2 + len(cluster) + 2 + messageFixed + 1 + len(m.GetContext())
	for _, e := range m.GetEntries() {
		size += entryHead + len(e.GetData())
	}
	b := appendHead(make([]byte, 0, size), cluster)
	flags := byte(0)
	if m.GetReject() {
		flags |= flagReject
	}
	if m.GetSnapshot() != nil {
		flags |= flagSnapshot
	}
	b = append(b, byte(m.GetType()), flags)
	b = appendUints(b, m.GetTo(), m.GetFrom(), m.GetTerm(), m.GetLogTerm(), m.GetIndex(), m.GetCommit(), m.GetRejectHint())
	b = append(b, byte(len(m.GetContext())))
	b = append(b, m.GetContext()...)
	if at := m.GetSnapshot().GetMetadata(); m.GetSnapshot() != nil {
		b = appendUints(b, at.GetIndex(), at.GetTerm())
		b = appendConf(b, at.GetConfState())
	}
	for _, e := range m.GetEntries() {
		b = appendEntry(b, e)
	}
	return b
}

// SenderOf returns raft's id of the member that has sent a message for Node.Step, as the message says
// it. It is ErrMessage if the bytes are no message of a cluster, whichever.
func SenderOf(data []byte) (uint64, error) {
	if len(data) < 2 || data[0] != messageVersion || len(data) < 2+int(data[1])+2+16 {
		return 0, fmt.Errorf("%w: its head cannot be read", ErrMessage)
	}
	return binary.LittleEndian.Uint64(data[2+int(data[1])+2+8:]), nil
}

// decodeMessage decodes a message and checks all that can be checked without raft's state: raft
// panics on some of what it does not expect.
func decodeMessage(cluster string, b []byte) (*pb.Message, error) {
	b, err := cutHead(b, cluster)
	if err != nil {
		return nil, err
	}
	if len(b) < 2+messageFixed+1 {
		return nil, fmt.Errorf("%w: it is cut short", ErrMessage)
	}
	m := &pb.Message{Type: pb.MessageType(b[0]).Enum()}
	flags := b[1]
	var to, from, term, logTerm, index, commit, hint uint64
	b = cutUints(b[2:], &to, &from, &term, &logTerm, &index, &commit, &hint)
	m.To, m.From, m.Term, m.LogTerm, m.Index, m.Commit, m.RejectHint = &to, &from, &term, &logTerm, &index, &commit, &hint
	m.Reject = new(flags&flagReject != 0)
	n := int(b[0])
	if b = b[1:]; n > maxContext || len(b) < n || flags > flagReject|flagSnapshot {
		return nil, fmt.Errorf("%w: a wrong context or flag", ErrMessage)
	}
	if n > 0 {
		m.Context = append([]byte(nil), b[:n]...)
	}
	b = b[n:]
	if flags&flagSnapshot != 0 {
		if b, err = decodeMark(m, b); err != nil {
			return nil, err
		}
	}
	if m.Entries, err = decodeEntries(b); err != nil {
		return nil, err
	}
	return m, checkMessage(m)
}

// decodeMark decodes a snapshot's position and members.
func decodeMark(m *pb.Message, b []byte) (rest []byte, err error) {
	if len(b) < 16 {
		return nil, fmt.Errorf("%w: its snapshot is cut short", ErrMessage)
	}
	var s snapshotMark
	b = cutUints(b, &s.index, &s.term)
	var ok bool
	if s.conf, b, ok = decodeConf(b); !ok {
		return nil, fmt.Errorf("%w: its snapshot's members cannot be read", ErrMessage)
	}
	m.Snapshot = s.raftSnapshot()
	return b, nil
}

// decodeEntries decodes entries up to the end of b.
func decodeEntries(b []byte) ([]*pb.Entry, error) {
	var entries []*pb.Entry
	for len(b) > 0 {
		if len(b) < entryHead || b[0] != kindEntry || len(entries) == maxMessageEntries {
			return nil, fmt.Errorf("%w: an entry is cut short, or there are too many", ErrMessage)
		}
		size := uint64(binary.LittleEndian.Uint32(b[1:]))
		if size < entryHead-recordHead || size > uint64(len(b)-recordHead) {
			return nil, fmt.Errorf("%w: an entry of %d bytes", ErrMessage, size)
		}
		entries = append(entries, parseEntry(b[recordHead:recordHead+size]))
		b = b[recordHead+size:]
	}
	return entries, nil
}

// checkMessage refuses messages that no member sends.
func checkMessage(m *pb.Message) error {
	if from := m.GetFrom(); from == raft.None || raft.IsLocalMsgTarget(from) || m.GetTerm() == 0 || m.GetTerm() == math.MaxUint64 {
		return fmt.Errorf("%w: from %016x in term %d", ErrMessage, from, m.GetTerm())
	}
	if (m.GetType() == pb.MsgSnap) != (m.GetSnapshot() != nil) || m.GetType() != pb.MsgApp && len(m.GetEntries()) > 0 {
		return fmt.Errorf("%w: of type %v with a wrong content", ErrMessage, m.GetType())
	}
	switch m.GetType() {
	case pb.MsgApp:
		return checkEntries(position{m.GetIndex(), m.GetLogTerm()}, m.GetTerm(), m.GetEntries())
	case pb.MsgSnap:
		at := m.GetSnapshot().GetMetadata()
		if at.GetIndex() == 0 || at.GetTerm() == 0 || at.GetTerm() > m.GetTerm() {
			return fmt.Errorf("%w: a snapshot of entry %d in term %d", ErrMessage, at.GetIndex(), at.GetTerm())
		}
		if _, err := newChanger(at.GetConfState()); err != nil {
			return fmt.Errorf("%w: a snapshot: %w", ErrMessage, err)
		}
		return nil
	case pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgHeartbeat, pb.MsgHeartbeatResp, pb.MsgTimeoutNow:
		return nil
	default:
		return fmt.Errorf("%w: of type %v, which no member sends", ErrMessage, m.GetType())
	}
}

// checkEntries checks that entries follow one another after a position, in terms up to term.
func checkEntries(after position, term uint64, entries []*pb.Entry) error {
	if after.term > term || after.index > math.MaxUint64-maxMessageEntries {
		return fmt.Errorf("%w: entry %d in term %d of term %d", ErrMessage, after.index, after.term, term)
	}
	for _, e := range entries {
		if e.GetIndex() != after.index+1 || e.GetTerm() < after.term || e.GetTerm() > term || len(e.GetData()) > MaxProposal+proposalHead {
			return fmt.Errorf("%w: entry %d in term %d after entry %d in term %d", ErrMessage, e.GetIndex(), e.GetTerm(), after.index, after.term)
		}
		after = position{e.GetIndex(), e.GetTerm()}
	}
	return nil
}

// pulled is a member's answer to ReadCommitted.
type pulled struct {
	member   uint64 // raft's id of who answers
	leader   uint64 // raft's id; 0: none is known
	term     uint64
	commit   uint64        // the member's last committed entry
	conf     *pb.ConfState // at that entry
	snapshot uint64        // index of the snapshot that is needed instead of entries; 0: none
	prev     position      // before entries
	entries  []*pb.Entry
}

func encodePulled(cluster string, p *pulled) []byte {
	b := appendUints(appendHead(nil, cluster), p.member, p.leader, p.term, p.commit, p.snapshot, p.prev.index, p.prev.term)
	b = appendConf(b, p.conf)
	for _, e := range p.entries {
		b = appendEntry(b, e)
	}
	return b
}

func decodePulled(cluster string, b []byte) (*pulled, error) {
	b, err := cutHead(b, cluster)
	if err != nil {
		return nil, err
	}
	if len(b) < pulledFixed {
		return nil, fmt.Errorf("%w: it is cut short", ErrMessage)
	}
	p := &pulled{}
	b = cutUints(b, &p.member, &p.leader, &p.term, &p.commit, &p.snapshot, &p.prev.index, &p.prev.term)
	var ok bool
	if p.conf, b, ok = decodeConf(b); !ok {
		return nil, fmt.Errorf("%w: its members cannot be read", ErrMessage)
	}
	if _, err := newChanger(p.conf); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if p.entries, err = decodeEntries(b); err != nil {
		return nil, err
	}
	if err := checkEntries(p.prev, math.MaxUint64-1, p.entries); err != nil {
		return nil, err
	}
	if p.prev.index+uint64(len(p.entries)) > p.commit && p.snapshot == 0 && len(p.entries) > 0 {
		return nil, fmt.Errorf("%w: entries behind the last committed one", ErrMessage)
	}
	return p, nil
}

func encodePart(cluster string, size int64, part []byte) []byte {
	b := appendUints(appendHead(make([]byte, 0, 2+len(cluster)+8+len(part)), cluster), uint64(size))
	return append(b, part...)
}

func decodePart(cluster string, b []byte) (size int64, part []byte, err error) {
	if b, err = cutHead(b, cluster); err != nil {
		return 0, nil, err
	}
	if len(b) < 8 || binary.LittleEndian.Uint64(b) > maxSnapshotBytes {
		return 0, nil, fmt.Errorf("%w: a part of a snapshot that is cut short or too large", ErrMessage)
	}
	return int64(binary.LittleEndian.Uint64(b)), b[8:], nil
}
