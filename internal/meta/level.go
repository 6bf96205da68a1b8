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

	// LatestLevel is the highest level that this version can read and write.
	LatestLevel = LevelAdmission
)

// SupportedLevels are the levels that this version can read and write, for a node's
// registration.
func SupportedLevels() FeatureRange {
	return FeatureRange{Name: LevelFeature, Min: LevelFirst, Max: LatestLevel}
}

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
