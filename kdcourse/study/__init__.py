"""What stands around the lessons: settings, runner, checks, quizzes, figures."""
