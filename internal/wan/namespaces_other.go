//go:build !linux

package wan

import "fmt"

// namespaces are Linux's.
type namespaces struct{ means }

// newNamespaces says that there are none.
func newNamespaces(*Network, *Config) (*namespaces, error) {
	return nil, fmt.Errorf("%w: network namespaces are Linux's", ErrUnavailable)
}
