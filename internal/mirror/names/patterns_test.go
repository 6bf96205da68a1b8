package names

import (
	"slices"
	"testing"
)

// TestIncluded proves that a filter tells of what kind its patterns are, with commas in regular expressions, and nothing of those that leave names out.
func TestIncluded(t *testing.T) {
	f, err := ParseFilter("orders, web-*,re:^a{1,2}$,*", "tmp-*")
	if err != nil {
		t.Fatal(err)
	}
	want := []Pattern{{Text: "orders", Name: "orders"}, {Text: "web-*", Name: "web-", IsPrefix: true}, {Text: "re:^a{1,2}$", IsRegexp: true}, {Text: "*", IsPrefix: true}}
	if got := f.Included(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := (*Filter)(nil).Included(); got != nil {
		t.Errorf("%+v", got)
	}
}
