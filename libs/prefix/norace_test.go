//go:build !race

package prefix

const raced = false
