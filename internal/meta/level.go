package meta

import "fmt"

// LevelFeature is the name of the feature whose finalized level says which records and
// fields may be written. A cluster of which no level was finalized has LevelFirst.
const LevelFeature = "leat.metadata"

// Levels of LevelFeature.
const (
	// LevelFirst has the records and fields of the first release.
	LevelFirst int16 = 0
	// LevelCluster adds Broker.Directory, Broker.RecordedEpoch, Broker.RaftID, TopicCreated.Follows,
	// TopicChanged, and the records of nodes and tokens. No release has written it without any of these, so that
	// they need no level of their own.
	LevelCluster int16 = 1

	// LevelAdmission adds NodeAdmitted.Ends and NodeForgotten.
	LevelAdmission int16 = 2

	// LevelSecurity adds the records of ACLs and SCRAM credentials.
	LevelSecurity int16 = 3

	// LevelGeneration adds Broker.Generation and DirectoryWritten.
	LevelGeneration int16 = 4

	// LevelQuotas adds the records of quotas.
	LevelQuotas int16 = 5

	// LevelIdentity adds ACLs whose operation is a role, and the records of delegation tokens and of the certificate authority.
	LevelIdentity int16 = 6

	// LevelSecuring adds SecuringSet.
	LevelSecuring int16 = 7

	// LevelLinks adds the records of links and mirrors.
	LevelLinks int16 = 8

	// LatestLevel is the highest level that this version can read and write.
	LatestLevel = LevelLinks
)

// SupportedLevels are the levels that this version can read and write, for a node's
// registration.
func SupportedLevels() FeatureRange {
	return FeatureRange{Name: LevelFeature, Min: LevelFirst, Max: LatestLevel}
}

// TransactionFeature is the name of the feature whose finalized level says which flow of transactions clients are to use:
// with 2 each transaction has an epoch of its own, and partitions need not be added before they are written to (KIP-890).
// Both flows are served at any level.
const TransactionFeature = "transaction.version"

// TransactionLevels are the levels of TransactionFeature that this version serves.
func TransactionLevels() FeatureRange { return FeatureRange{Name: TransactionFeature, Min: 0, Max: 2} }

// Level is the finalized level of LevelFeature.
func (m *Image) Level() int16 { return m.Feature(LevelFeature) }

// AppendLevel appends to an entry the record that finalizes a feature's level; 0 removes the feature.
func AppendLevel(entry []byte, feature string, level int16) []byte {
	if feature == LevelFeature {
		return Append(entry, LevelSet{Level: level})
	}
	return Append(entry, FeatureSet{Name: feature, Level: level})
}

// checkNextLevel refuses a level that this version does not know: it would not keep what that
// level has Apply keep, even if it could read all records. A level never goes back, since the image
// may have what a lower one refuses.
func (s *step) checkNextLevel(next int16) error {
	if next > LatestLevel {
		return fmt.Errorf("%w (level %d of %s, this version knows %d)", ErrNewer, next, LevelFeature, LatestLevel)
	}
	if level := s.m.Level(); next < level {
		return fmt.Errorf("%s goes back from level %d to %d", LevelFeature, level, next)
	}
	return nil
}

// requireCluster refuses a record or a field of LevelCluster below that level, where an older
// version could not read it. A decision that wrote it too early therefore fits no image and is
// never proposed.
func (s *step) requireCluster() error { return s.requireLevel(LevelCluster) }

// requireLevel is requireCluster for another level.
func (s *step) requireLevel(least int16) error {
	if level := s.m.Level(); level < least {
		return fmt.Errorf("it needs level %d of %s, and the cluster has %d", least, LevelFeature, level)
	}
	return nil
}
