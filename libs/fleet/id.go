package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"

	"github.com/zeebo/xxh3"
)

// Buckets is the number of groups that a pool's engines fall into.
const Buckets = 64

// PoolID names the pool of a base model. Subjects and keys must not hold the dots and slashes of a model id.
func PoolID(model string) string { return id(model) }

// EngineID names an engine found as a pod.
func EngineID(name, uid string, rank int) string {
	return id(name+":"+uid) + "-r" + strconv.Itoa(rank)
}

// EngineIDFromURL names an engine found by its address.
func EngineIDFromURL(host string, port int, rank int) string {
	return EngineID(host, strconv.Itoa(port), rank)
}

// Bucket is the bucket of an engine.
func Bucket(engineID string) int { return int(xxh3.HashString(engineID) % Buckets) }

// id makes a name safe and keeps it apart from others: lower case, what is outside [a-z0-9] made '-', cut at 40, then
// '-' and 8 hex digits of the SHA-256 of the name as it was.
func id(name string) string {
	const longest = 40
	slug := strings.Map(func(r rune) rune {
		r = unicode.ToLower(r)
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	sum := sha256.Sum256([]byte(name))
	return slug[:min(len(slug), longest)] + "-" + hex.EncodeToString(sum[:4])
}
