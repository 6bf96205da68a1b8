package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
)

// reader reads the fields of a record's body, or of an element in it, in their order.
// A field that is missing or out of range is read as zero and sets bad, which the caller
// looks at after the last field.
type reader struct {
	b     []byte  // the bytes that are not read yet
	bad   bool    // a field is missing or out of range
	newer bool    // a newer version wrote a value or a field that is unknown here
	ids   []int32 // memory that the lists of replicas share
}

func (r *reader) readUvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) readVarint(lo, hi int64) int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || v < lo || v > hi {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) readInt32() int32 { return int32(r.readVarint(math.MinInt32, math.MaxInt32)) }

func (r *reader) readInt16() int16 { return int16(r.readVarint(math.MinInt16, math.MaxInt16)) }

func (r *reader) readInt64() int64 { return r.readVarint(math.MinInt64, math.MaxInt64) }

// readNonNegative reads a number from 0 to math.MaxInt32.
func (r *reader) readNonNegative() int32 {
	v := r.readUvarint()
	if v > math.MaxInt32 {
		r.bad = true
		return 0
	}
	return int32(v)
}

// readCount reads how many elements or bytes follow. Each takes at least a byte, so a
// count that is larger than the rest of the body is bad.
func (r *reader) readCount() int {
	n := r.readUvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

// readCountUpTo reads a count that must not be larger than limit.
func (r *reader) readCountUpTo(limit int) int {
	n := r.readCount()
	if n > limit {
		r.b, r.bad = nil, true
		return 0
	}
	return n
}

func (r *reader) readText() string { return r.readTextUpTo(maxText) }

// readTextUpTo reads a text that must not have more bytes than limit.
func (r *reader) readTextUpTo(limit int) string {
	n := r.readCountUpTo(limit)
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// readBytes reads as many bytes as there is room for.
func (r *reader) readBytes(to []byte) {
	if len(r.b) < len(to) {
		r.b, r.bad = nil, true
		return
	}
	r.b = r.b[copy(to, r.b):]
}

// readUint64 reads eight bytes: one of raft's ids, or the bits of a number.
func (r *reader) readUint64() uint64 {
	var b [8]byte
	r.readBytes(b[:])
	return binary.BigEndian.Uint64(b[:])
}

func (r *reader) readUUID() (id UUID) {
	r.readBytes(id[:])
	return id
}

func (r *reader) readTokenID() (id credential.TokenID) {
	r.readBytes(id[:])
	return id
}

// readKey reads a public key, or another one of that length.
func (r *reader) readKey() (key [32]byte) {
	r.readBytes(key[:])
	return key
}

// readBool reads what appendBool wrote.
func (r *reader) readBool() bool {
	v := r.readUvarint()
	if v > 1 {
		r.newer = true
	}
	return v == 1
}

// readOptionalBool reads a value that is left out if it is false.
func (r *reader) readOptionalBool() bool { return len(r.b) > 0 && r.readBool() }

func (r *reader) readBrokerState() BrokerState {
	s := r.readUvarint()
	if s > uint64(BrokerLeaving) {
		r.newer = true
		return 0
	}
	return BrokerState(s)
}

func (r *reader) readResource() config.Resource {
	t := r.readUvarint()
	if t > math.MaxInt8 {
		r.bad = true
	}
	return config.Resource{Type: config.ResourceType(t), Name: r.readText()}
}

func (r *reader) readIDs() []int32 {
	n := r.readCount()
	if n == 0 {
		return nil
	}
	if n > cap(r.ids)-len(r.ids) {
		r.ids = make([]int32, 0, max(n, 64))
	}
	from := len(r.ids)
	for range n {
		r.ids = append(r.ids, r.readInt32())
	}
	return r.ids[from:len(r.ids):len(r.ids)]
}

// readOptionalIDs reads a list that appendOptional wrote: at the end of the body it
// is empty.
func (r *reader) readOptionalIDs() []int32 {
	if len(r.b) == 0 {
		return nil
	}
	return r.readIDs()
}

// readElement hands read a reader of one element, which has its length in front. A
// field that read leaves over is a newer version's.
func (r *reader) readElement(read func(*reader)) {
	n := r.readCount()
	element := reader{b: r.b[:n], ids: r.ids}
	read(&element)
	r.bad = r.bad || element.bad
	r.newer = r.newer || element.newer || len(element.b) > 0
	r.b, r.ids = r.b[n:], element.ids
}

func (r *reader) readPartition() Partition {
	p := Partition{Replicas: r.readIDs(), ISR: r.readIDs()}
	p.Leader, p.LeaderEpoch, p.PartitionEpoch = r.readInt32(), r.readInt32(), r.readInt32()
	p.Adding, p.Removing, p.Eligible, p.LastEligible = r.readOptionalIDs(), r.readOptionalIDs(), r.readOptionalIDs(), r.readOptionalIDs()
	return p
}

func (r *reader) readPartitionChanged() PartitionChanged {
	c := PartitionChanged{Topic: r.readUUID(), Partition: r.readNonNegative(), ISR: r.readIDs()}
	c.Leader, c.LeaderEpoch, c.PartitionEpoch = r.readInt32(), r.readInt32(), r.readInt32()
	c.Eligible, c.LastEligible = r.readOptionalIDs(), r.readOptionalIDs()
	return c
}

func (r *reader) readBroker() Broker {
	b := Broker{ID: r.readInt32(), Epoch: r.readInt64(), Incarnation: r.readUUID(), State: r.readBrokerState(), Rack: r.readText()}
	if n := r.readCountUpTo(maxListeners); n > 0 {
		b.Listeners = make([]Listener, n)
		for i := range b.Listeners {
			r.readElement(func(r *reader) {
				b.Listeners[i] = Listener{
					Name: r.readText(), Host: r.readText(), Port: r.readNonNegative(), Security: SecurityProtocol(r.readInt16()),
				}
			})
		}
	}
	if n := r.readCountUpTo(maxFeatures); n > 0 {
		b.Features = make([]FeatureRange, n)
		for i := range b.Features {
			r.readElement(func(r *reader) {
				b.Features[i] = FeatureRange{Name: r.readText(), Min: r.readInt16(), Max: r.readInt16()}
			})
		}
	}
	if len(r.b) > 0 {
		b.Directory = r.readUUID()
	}
	if len(r.b) > 0 {
		b.RecordedEpoch = r.readInt64()
	}
	if len(r.b) > 0 {
		b.RaftID = r.readUint64()
	}
	if len(r.b) > 0 {
		b.Generation = r.readInt64()
	}
	return b
}

// decodeEach decodes the records of an entry and hands each to do, until one fails.
func decodeEach(entry []byte, do func(Record) error) error {
	var ids []int32 // see reader.ids
	for len(entry) > 0 {
		head := reader{b: entry}
		tag, written := head.readUvarint(), head.readUvarint()
		n := head.readCount()
		if head.bad {
			return fmt.Errorf("%w: an entry is cut short", ErrCorrupt)
		}
		if tag == 0 {
			return fmt.Errorf("%w: a record without a tag", ErrCorrupt)
		}
		if written < version {
			return fmt.Errorf("%w (record %d)", ErrOlder, tag)
		}
		if tag > lastTag || written > version {
			return fmt.Errorf("%w (record %d, version %d)", ErrNewer, tag, written)
		}
		r := reader{b: head.b[:n], ids: ids}
		if err := r.readRecord(tag, do); err != nil {
			return fmt.Errorf("record %d: %w", tag, err)
		}
		ids, entry = r.ids, head.b[n:]
	}
	return nil
}

// readRecord reads a record's body and hands the record to do.
func (r *reader) readRecord(tag uint64, do func(Record) error) error {
	var rec Record
	switch tag {
	case tagClusterCreated:
		rec = ClusterCreated{ID: r.readText(), Tag: uint32(r.readNonNegative())}
	case tagBrokerRegistered:
		rec = BrokerRegistered{r.readBroker()}
	case tagBrokerUnregistered:
		rec = BrokerUnregistered{ID: r.readInt32()}
	case tagBrokerEpochGiven:
		rec = BrokerEpochGiven{Epoch: r.readInt64()}
	case tagBrokerChanged:
		rec = BrokerChanged{ID: r.readInt32(), Epoch: r.readInt64(), State: r.readBrokerState()}
	case tagTopicCreated:
		rec = TopicCreated{ID: r.readUUID(), Name: r.readText(), Follows: r.readOptionalBool()}
	case tagTopicChanged:
		rec = TopicChanged{ID: r.readUUID(), Follows: r.readBool()}
	case tagPartitionsSet:
		rec = r.readPartitionsSet()
	case tagPartitionChanged:
		rec = r.readPartitionChanged()
	case tagTopicDeleted:
		rec = TopicDeleted{ID: r.readUUID()}
	case tagConfigSet:
		rec = ConfigSet{Resource: r.readResource(), Key: r.readText(), Value: r.readText()}
	case tagConfigUnset:
		rec = ConfigUnset{Resource: r.readResource(), Key: r.readText()}
	case tagProducerIDsGiven:
		rec = ProducerIDsGiven{Next: r.readInt64()}
	case tagFeatureSet:
		rec = FeatureSet{Name: r.readText(), Level: int16(r.readVarint(0, math.MaxInt16))}
	case tagLevelSet:
		rec = LevelSet{Level: int16(r.readVarint(0, math.MaxInt16))}
	case tagFeaturesChanged:
		rec = FeaturesChanged{Epoch: r.readUvarint()}
	default:
		r.readNodeRecord(tag, &rec)
	}
	switch {
	case r.bad:
		return fmt.Errorf("%w: it is cut short, or a number is out of range", ErrCorrupt)
	case r.newer || len(r.b) > 0:
		return fmt.Errorf("%w (an unknown field)", ErrNewer)
	}
	err := do(rec)
	if err != nil && !errors.Is(err, ErrNewer) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// readNodeRecord reads the body of a record about nodes, their directories and tokens into rec.
func (r *reader) readNodeRecord(tag uint64, rec *Record) {
	switch tag {
	case tagNodeAdmitted:
		a := NodeAdmitted{ID: r.readInt32(), Key: r.readKey(), Directory: r.readUUID()}
		if len(r.b) > 0 {
			a.Ends = r.readInt64()
		}
		*rec = a
	case tagDirectoryWritten:
		*rec = DirectoryWritten{ID: r.readInt32(), Epoch: r.readInt64(), Generation: r.readInt64()}
	case tagNodeForgotten:
		*rec = NodeForgotten{ID: r.readInt32()}
	case tagNodeRemoved:
		*rec = NodeRemoved{ID: r.readInt32()}
	case tagTokenMade:
		*rec = TokenMade{ID: r.readTokenID(), Key: r.readKey(), Acceptor: r.readKey(), Expires: r.readInt64()}
	case tagTokenRevoked:
		*rec = TokenRevoked{ID: r.readTokenID()}
	case tagTokenForgotten:
		*rec = TokenForgotten{ID: r.readTokenID()}
	case tagACLSet:
		*rec = ACLSet{r.readACL()}
	case tagACLUnset:
		*rec = ACLUnset{r.readACL()}
	case tagCredentialSet:
		c := ScramCredential{CredentialOwner: r.readOwner()}
		c.Salt, c.StoredKey, c.ServerKey = []byte(r.readText()), []byte(r.readText()), []byte(r.readText())
		c.Iterations = r.readNonNegative()
		*rec = CredentialSet{c}
	case tagCredentialUnset:
		*rec = CredentialUnset{r.readOwner()}
	case tagQuotaSet:
		*rec = QuotaSet{Entity: r.readQuotaEntity(), Key: QuotaKey(r.readText()), Value: math.Float64frombits(r.readUint64())}
	case tagQuotaUnset:
		*rec = QuotaUnset{Entity: r.readQuotaEntity(), Key: QuotaKey(r.readText())}
	case tagDelegationTokenMade:
		*rec = DelegationTokenMade{r.readDelegationToken()}
	case tagDelegationTokenExpirySet:
		*rec = DelegationTokenExpirySet{ID: r.readUUID(), Expires: r.readInt64()}
	case tagDelegationTokenRemoved:
		*rec = DelegationTokenRemoved{ID: r.readUUID()}
	case tagAuthoritySet:
		*rec = AuthoritySet{r.readAuthority()}
	case tagSecuringSet:
		*rec = SecuringSet{r.readSecuring()}
	default:
		r.readLinkRecord(tag, rec)
	}
}

// readLinkRecord reads the body of a record about links and mirrors into rec.
func (r *reader) readLinkRecord(tag uint64, rec *Record) {
	switch tag {
	case tagLinkSet:
		*rec = LinkSet{r.readLink()}
	case tagLinkRemoved:
		*rec = LinkRemoved{ID: r.readUUID()}
	case tagMirrorSet:
		m := MirrorSet{Topic: r.readUUID()}
		if len(r.b) > 0 {
			m.Mirror = r.readMirror()
		}
		*rec = m
	case tagPartitionMirrorSet:
		*rec = PartitionMirrorSet{Topic: r.readUUID(), Partition: r.readNonNegative(), PartitionMirror: r.readPartitionMirror()}
	default:
		panic(fmt.Sprintf("BUG: record %d has a tag and no reader", tag))
	}
}

func (r *reader) readPartitionsSet() PartitionsSet {
	s := PartitionsSet{Topic: r.readUUID(), First: r.readNonNegative()}
	n := r.readCount()
	if n > maxPartitionsInRecord || n > len(r.b)/minPartitionBytes {
		r.bad = true
		return s
	}
	s.Partitions = make([]Partition, n)
	for i := range s.Partitions {
		r.readElement(func(r *reader) { s.Partitions[i] = r.readPartition() })
	}
	return s
}

func (r *reader) readACL() (a ACL) {
	a.Principal, a.Host = r.readText(), r.readText()
	a.Resource, a.Pattern = ResourceType(r.readSmall()), PatternType(r.readSmall())
	a.Name = r.readText()
	a.Operation, a.Permission = Operation(r.readSmall()), Permission(r.readSmall())
	if a.Host == AnyHost {
		a.Host = AnyHost // the constant needs no memory of its own
	}
	return a
}

// readSmall reads a number from 0 to math.MaxInt8.
func (r *reader) readSmall() int8 {
	v := r.readUvarint()
	if v > math.MaxInt8 {
		r.bad = true
		return 0
	}
	return int8(v)
}

func (r *reader) readOwner() CredentialOwner {
	return CredentialOwner{User: r.readText(), Mechanism: ScramMechanism(r.readSmall())}
}

func (r *reader) readQuotaEntity() (e QuotaEntity) {
	for _, n := range []*QuotaName{&e.User, &e.ClientID, &e.IP} {
		n.Is, n.Name = r.readBool(), r.readText()
	}
	return e
}

func (r *reader) readDelegationToken() DelegationToken {
	t := DelegationToken{ID: r.readUUID(), Owner: r.readText(), Requester: r.readText()}
	if n := r.readCountUpTo(maxTokenRenewers); n > 0 {
		t.Renewers = make([]string, n)
		for i := range t.Renewers {
			t.Renewers[i] = r.readText()
		}
	}
	t.Issued, t.MaxTime, t.Expires = r.readInt64(), r.readInt64(), r.readInt64()
	check := r.readUvarint()
	if check > math.MaxUint16 {
		r.bad = true
	}
	t.KeyCheck = uint16(check)
	return t
}

func (r *reader) readAuthority() (a Authority) {
	a.Number, a.Round = uint32(r.readNonNegative()), uint32(r.readNonNegative())
	for range r.readCountUpTo(maxAuthorityCertificates) {
		a.Certificates = append(a.Certificates, []byte(r.readText()))
	}
	if cross := r.readText(); cross != "" {
		a.Cross = []byte(cross)
	}
	a.SealedKey = []byte(r.readText())
	return a
}

func (r *reader) readSecuring() (g Securing) {
	g.State = SecuringState(r.readSmall())
	r.readBytes(g.KeyID[:])
	g.Super, g.HasUser = r.readText(), r.readBool()
	g.Ready = r.readIDs()
	return g
}

func (r *reader) readLink() (l Link) {
	l.ID, l.Name, l.Source = r.readUUID(), r.readTextUpTo(MaxLinkName), r.readTextUpTo(maxClusterID)
	if n := r.readCountUpTo(MaxLinkSettings); n > 0 {
		l.Settings = make([]LinkSetting, n)
		for i := range l.Settings {
			r.readElement(func(r *reader) {
				l.Settings[i] = LinkSetting{Key: r.readTextUpTo(MaxLinkSettingBytes), Value: r.readTextUpTo(MaxLinkSettingBytes)}
			})
		}
	}
	if secret := r.readTextUpTo(maxLinkSecret); secret != "" {
		l.Secret = []byte(secret)
	}
	l.Paused = r.readBool()
	return l
}

func (r *reader) readMirror() *Mirror {
	m := &Mirror{Link: r.readUUID(), Topic: r.readTextUpTo(maxSourceTopic), TopicID: r.readUUID()}
	if n := r.readCountUpTo(MaxPath); n > 0 {
		m.Path = make([]string, n)
		for i := range m.Path {
			m.Path[i] = r.readTextUpTo(maxClusterID)
		}
	}
	m.State = MirrorState(r.readState(uint8(MirrorPromoted)))
	return m
}

func (r *reader) readPartitionMirror() (m PartitionMirror) {
	m.State, m.Reason = PartitionMirrorState(r.readState(uint8(PartitionPromoted))), r.readTextUpTo(MaxMirrorReason)
	if n := r.readCountUpTo(MaxLineages); n > 0 {
		m.Lineages = make([]Lineage, n)
		for i := range m.Lineages {
			r.readElement(func(r *reader) {
				m.Lineages[i] = Lineage{Cluster: r.readTextUpTo(maxClusterID), Epoch: r.readInt32(), Start: r.readInt64()}
			})
		}
	}
	if n := r.readCountUpTo(MaxCuts); n > 0 {
		m.Cuts = make([]Cut, n)
		for i := range m.Cuts {
			r.readElement(func(r *reader) { m.Cuts[i] = Cut{Number: r.readInt32(), Offset: r.readInt64()} })
		}
	}
	if len(r.b) > 0 {
		m.Gap = OffsetRange{Start: r.readInt64(), End: r.readInt64()}
	}
	if len(r.b) > 0 {
		m.Begin = MirrorBegin{IsDecided: r.readBool(), Offset: r.readInt64(), Topic: r.readUUID()}
		m.TombstonesSince = r.readInt64()
	}
	if len(r.b) > 0 {
		m.IsDecided = r.readBool()
		if n := r.readCountUpTo(MaxDecisions); n > 0 {
			m.Decisions = make([]MirrorDecision, n)
			for i := range m.Decisions {
				r.readElement(func(r *reader) { m.Decisions[i] = readDecision(r) })
			}
		}
	}
	if len(r.b) > 0 {
		m.Parting = &Parting{}
		r.readElement(func(r *reader) {
			m.Parting.State = PartitionMirrorState(r.readState(uint8(PartitionPromoted)))
			m.Parting.End, m.Parting.SourceEnd, m.Parting.Bytes = r.readInt64(), r.readInt64(), r.readInt64()
			m.Parting.ContactMs, m.Parting.AsOfMs, m.Parting.BegunMs = r.readInt64(), r.readInt64(), r.readInt64()
		})
	}
	return m
}

func readDecision(r *reader) MirrorDecision {
	return MirrorDecision{
		Producer: r.readInt64(), Epoch: r.readInt16(), MarkerEpoch: r.readInt16(), First: r.readInt64(), Commit: r.readBool(), Outcome: uint8(min(r.readUvarint(), math.MaxUint8)),
	}
}

// readState reads a state up to the last one that this version knows.
func (r *reader) readState(last uint8) uint8 {
	v := r.readUvarint()
	if v > uint64(last) {
		r.newer = true
		return 0
	}
	return uint8(v)
}
