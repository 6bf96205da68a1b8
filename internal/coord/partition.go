package coord

import "unicode/utf16"

// PartitionOf is the partition, of n, of a coordinator's topic that has the records of a group or of a
// transactional id: Java's hash of its name, over its UTF-16 units, made positive, modulo n.
func PartitionOf(name string, n int32) int32 {
	var h int32
	for _, r := range name {
		if r1, r2 := utf16.EncodeRune(r); r1 != '\uFFFD' {
			h = 31*h + r1
			r = r2
		}
		h = 31*h + r
	}
	if h == -1<<31 {
		return 0
	}
	if h < 0 {
		h = -h
	}
	return h % n
}
