package txn

import (
	"fmt"

	"github.com/leatstream/leat/internal/coord"
)

// Describe names the state that a record has, for the histories of simulations.
func Describe(r coord.Record) string {
	id, err := decodeKey(r.Key)
	if err != nil {
		return err.Error()
	}
	if r.Value == nil {
		return id + " is deleted"
	}
	st, err := decodeValue(r.Value)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s is %v with %d/%d, version %d, %v", id, st.status, st.producer, st.epoch, st.version, st.partitions)
}
