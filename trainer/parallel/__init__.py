"""Ranks: process groups, Ray Train, and stopping all of them at the same place."""
