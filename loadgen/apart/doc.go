// Package apart holds the whole stack, in front of simulated engines that check every field, to what it promises of
// prompts that one engine computes and another decodes. It has tests only.
package apart
