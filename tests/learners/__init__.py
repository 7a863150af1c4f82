"""What learners hand in, right and wrong: one file a lesson, read by test_exercises."""
