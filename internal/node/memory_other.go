//go:build !linux || portable

package node

// dropImage would unmap pages of the program's own file.
func dropImage() {}
