//go:build !race

package prefix

// pause stands where a reader may be overtaken by the writer. Under the race detector it lets that happen often.
func pause() {}

// moveAfter is after how many retired slots and sets the epoch is to move.
const moveAfter = 256
