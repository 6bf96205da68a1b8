//go:build !linux

package main

import "errors"

func run(*config) error { return errors.New("this program needs Linux") }
