package enginesim

// OutputToken returns token number position (from 0) of an answer. There is no model: the token is a hash of its
// arguments, and equal arguments give equal answers on every engine. It is always one that Detokenize turns into a
// word of its own, so that Tokenize finds it again.
func OutputToken(seed, answer uint64, position int) uint32 {
	x := mix64(seed ^ mix64(answer+uint64(position)*0x9e3779b97f4a7c15))
	return wordBase + uint32((x>>32)*words>>32)
}

// mix64 is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection in which every bit depends on all.
func mix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
